"""The bench's web page: shows what the rooms know, and does what the command line does by running it.

Nothing in here decides, signs or writes to evidence or ledger: every act is a `devguard` command in a process of its
own (docs/decisions/0033). FastAPI, Jinja2 and the rest are the extra `web`, imported only by `devguard serve`.
"""
