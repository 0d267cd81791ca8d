"""Tandem message numbers: per characteristic, because the same opcode means different messages on each.

A pair is (request opcode, name, bytes of the request's cargo, bytes of the answer's cargo); the answer's opcode is one
more. A lone message is (opcode, name, bytes of cargo). None: the size varies. Sizes are without the 24 bytes of a
signature. Messages of CONTROL and CONTROL_STREAM are signed. Names are those of the open-source readers.
"""

from __future__ import annotations

from typing import Final

Pair = tuple[int, str, int | None, int | None]
Lone = tuple[int, str, int | None]

SIGNED: Final = frozenset({"CONTROL", "CONTROL_STREAM"})
PAIRS: Final[dict[str, tuple[Pair, ...]]] = {
    "AUTHORIZATION": (
        (16, "CentralChallenge", 10, 30),
        (18, "PumpChallenge", 22, 3),
        (32, "Jpake1a", 167, 167),
        (34, "Jpake1b", 167, 167),
        (36, "Jpake2", 167, 170),
        (38, "Jpake3SessionKey", 2, 18),
        (40, "Jpake4KeyConfirmation", 50, 50),
    ),
    "CURRENT_STATUS": (
        (20, "LoadStatus", 0, 3),
        (30, "TempRateStatus", 0, 16),
        (32, "ApiVersion", None, 4),
        (34, "CurrentEGVGuiData", 0, 8),
        (36, "InsulinStatus", 0, 4),
        (38, "NonControlIQIOB", 0, 12),
        (40, "CurrentBasalStatus", 0, 9),
        (42, "TempRate", 0, 10),
        (44, "CurrentBolusStatus", 0, 15),
        (46, "ExtendedBolusStatus", 0, 18),
        (48, "LastBolusStatus", 0, 20),
        (50, "LastBG", 0, 7),
        (52, "CurrentBatteryV1", 0, 2),
        (54, "TimeSinceReset", 0, 8),
        (56, "HomeScreenMirror", 0, 9),
        (58, "HistoryLogStatus", 0, 12),
        (60, "HistoryLog", 5, 2),
        (62, "ProfileStatus", 0, 8),
        (64, "IDPSettings", 1, 23),
        (66, "IDPSegment", 2, 15),
        (68, "AlertStatus", 0, 8),
        (70, "AlarmStatus", 0, 8),
        (72, "ReminderStatus", 0, 8),
        (74, "CGMAlertStatus", 0, 8),
        (78, "PumpFeaturesV1", 0, 8),
        (80, "CGMStatus", 0, 10),
        (82, "PumpSettings", 0, 9),
        (84, "PumpVersion", 0, 48),
        (86, "PumpGlobals", 0, 14),
        (88, "Reminders", 0, 105),
        (90, "CGMGlucoseAlertSettings", 0, 12),
        (92, "CGMRateAlertSettings", 0, 6),
        (94, "CGMOORAlertSettings", 0, 3),
        (96, "CGMHardwareInfo", 0, 17),
        (98, "BasalIQSettings", 0, 3),
        (102, "BasalIQAlertInfo", 0, 4),
        (104, "ControlIQInfoV1", 0, 10),
        (106, "ControlIQSleepSchedule", 0, 24),
        (108, "ControlIQIOB", 0, 17),
        (110, "UnknownMobiOpcode110", 0, 4),
        (112, "BasalIQStatus", 0, 2),
        (114, "BolusCalcDataSnapshot", 0, 46),
        (116, "GetSavedG7PairingCode", 0, 2),
        (120, "HighestAam", 0, None),
        (126, "CreateHistoryLog", 4, 1),
        (132, "PumpVersionB", 0, 60),
        (136, "BleSoftwareInfo", 0, 14),
        (138, "BasalLimitSettings", 0, 8),
        (140, "GlobalMaxBolusSettings", 0, 4),
        (142, "CommonSoftwareInfo", None, None),
        (144, "CurrentBatteryV2", 0, 11),
        (146, "ActiveAamBits", 1, 17),
        (150, "CurrentActiveIdpValues", 0, 10),
        (160, "PumpFeaturesV2", 1, 6),
        (164, "LastBolusStatusV2", 0, 24),
        (166, "Localization", 0, 7),
        (168, "BolusPermissionChangeReason", 2, 5),
        (178, "ControlIQInfoV2", 0, 19),
        (182, "ExtendedBolusStatusV2", 0, 22),
        (186, "LastBolusStatusV3", 0, 53),
        (188, "SecretMenu", 0, 8),
        (190, "CgmStatusV2", 0, 20),
        (192, "CurrentEgvGuiDataV2", 0, 8),
        (196, "GetG6TransmitterHardwareInfo", 0, 96),
        (198, "StreamDataReadiness", 1, 2),
        (200, "CgmSupportPackageStatus", 1, 2),
    ),
    "CONTROL": (
        (118, "SendTipsControlGenericTest", 24, 1),
        (124, "FactoryResetB", 9, 0),
        (130, "StreamDataPreflight", None, 3),
        (132, "UserInteraction", 0, 1),
        (134, "SetMaxBolusLimit", 2, 1),
        (136, "SetMaxBasalLimit", 4, 1),
        (144, "EnterChangeCartridgeMode", 0, 1),
        (146, "ExitChangeCartridgeMode", 0, 1),
        (148, "EnterFillTubingMode", 0, 1),
        (150, "ExitFillTubingMode", 0, 1),
        (152, "FillCannula", 2, 1),
        (154, "ResumePumping", 0, 1),
        (156, "SuspendPumping", 0, 1),
        (158, "InitiateBolus", 37, 6),
        (160, "CancelBolus", 4, 5),
        (162, "BolusPermission", 0, 6),
        (164, "SetTempRate", 6, 4),
        (166, "StopTempRate", 0, 3),
        (168, "RenameIDP", 19, 2),
        (170, "SetIDPSegment", 17, 2),
        (172, "SetIDPSettings", 6, 2),
        (174, "DeleteIDP", 2, 2),
        (176, "SetG6TransmitterId", 16, 1),
        (178, "StartDexcomG6SensorSession", 2, 1),
        (180, "StopDexcomCGMSensorSession", 0, 1),
        (182, "RemoteBgEntry", 11, 1),
        (184, "DismissNotification", 6, 1),
        (186, "ActivateShelfMode", 0, 0),
        (190, "DisconnectPump", 0, 1),
        (192, "SetSensorType", 1, 2),
        (194, "CgmHighLowAlert", 7, 1),
        (196, "CgmRiseFallAlert", 4, 1),
        (198, "CgmOutOfRangeAlert", 3, 1),
        (202, "ChangeControlIQSettings", 6, 3),
        (204, "SetModes", 1, 1),
        (206, "SetSleepSchedule", 8, 1),
        (210, "SetQuickBolusSettings", 7, 1),
        (212, "SetPumpAlertSnooze", 2, 1),
        (214, "ChangeTimeDate", 4, 1),
        (216, "SetBgReminder", 9, 1),
        (218, "SetMissedMealBolusReminder", 8, 1),
        (220, "SetSiteChangeReminder", 7, 1),
        (222, "SetLowInsulinAlert", 1, 1),
        (224, "SetAutoOffAlert", 4, 1),
        (228, "SetPumpSounds", 9, 1),
        (230, "CreateIDP", 35, 2),
        (232, "FactoryReset", 8, 0),
        (236, "SetActiveIDP", 2, 1),
        (238, "PrimeTubingSuspend", 0, 3),
        (240, "BolusPermissionRelease", 4, 1),
        (242, "RemoteCarbEntry", 9, 1),
        (244, "PlaySound", 0, 1),
        (250, "AdditionalBolus", 4, 5),
        (252, "SetDexcomG7PairingCode", 8, 2),
    ),
}
LONE: Final[dict[str, tuple[Lone, ...]]] = {
    "CURRENT_STATUS": (
        (77, "ErrorResponse", 2),
        (118, "MalfunctionStatusRequest", 0),
        (119, "MalfunctionBitmaskStatusResponse", 8),
    ),
    "CONTROL_STREAM": (
        (225, "EnterChangeCartridgeModeStateStreamResponse", 1),
        (227, "DetectingCartridgeStateStreamResponse", 2),
        (227, "LoadCartridgeStateStreamResponse", 1),
        (229, "FillTubingStateStreamResponse", 1),
        (231, "FillCannulaStateStreamResponse", 1),
        (233, "ExitFillTubingModeStateStreamResponse", 1),
        (233, "PrimeNudgeStateStreamResponse", 1),
        (233, "PumpingStateStreamResponse", 5),
    ),
    "HISTORY_LOG": ((129, "HistoryLogStreamResponse", None),),
}
THERAPY: Final = {
    "CONTROL": frozenset(
        {
            # marked by the readers as changing insulin delivery, requests and answers
            *(144, 145, 148, 149, 152, 153, 154, 155, 156, 158, 159, 164, 166, 168, 169, 174, 175),
            *(204, 205, 230, 231, 236, 237, 250, 251),
            # requests that limit or schedule therapy, prime, set a clock or an address, or whose effect is not known
            *(118, 124, 130, 132, 134, 136, 146, 150, 172, 176, 186, 202, 206, 210, 214, 224, 232, 238, 252),
        }
    ),
}
"""Opcodes that act on therapy, as the readers mark them and beyond."""
UNMARKED: Final = {"CONTROL": frozenset({160, 170})}
"""Cancelling a bolus and editing a profile segment act on therapy, but the readers do not mark them and the family's
vectors follow the readers: `therapy_affecting` is false, `effect` says that they act."""
PATIENT_REQUESTS: Final = frozenset(
    {"RemoteBgEntryRequest", "RemoteCarbEntryRequest", "CreateIDPRequest", "RenameIDPRequest"}
)
"""Requests that carry glucose, carbohydrates or a name; answers and streams are taken to be patient data always."""
