"""The pages of the reference: which public names stand on which, grouped as users think."""

from __future__ import annotations

from typing import NamedTuple


class Listed(NamedTuple):
    """Names that are imported from one module, in the order in which they are shown."""

    module: str
    names: tuple[str, ...]


class ReferencePage(NamedTuple):
    """A page: its file, its title, what it says first, what it explains."""

    file: str
    title: str
    lead: str
    listed: tuple[Listed, ...]
    mirrors: str = ""
    """The module of the async classes whose methods these are, without `await`."""
    borrowed: bool = False
    """Whether its names are a framework's: elsewhere the same ones mean something of ours."""


MANAGER = ReferencePage(
    "manager.md",
    "The session manager",
    "Where everything begins. What its words mean is in [Concepts](../concepts.md).",
    (
        Listed("sojourn", ("SessionManager", "open_store")),
        Listed("sojourn.manager", ("Window",)),
        Listed("sojourn.saving", ("Policy",)),
        Listed("sojourn.store", ("Durability", "Order")),
        Listed("sojourn.ports", ("Clock", "IdSource", "SystemClock", "RandomIds")),
    ),
)

SESSION = ReferencePage(
    "session.md",
    "The session and its state",
    "What you hold: a working copy. [Concepts](../concepts.md#state-and-its-tiers) say who\n"
    "shares which key.",
    (Listed("sojourn", ("Session",)), Listed("sojourn.session", ("State",))),
)

EVENTS = ReferencePage(
    "events.md",
    "Events and pages",
    "What goes into a log, which part of it to read, and pages of sessions. See\n"
    "[The log](../concepts.md#the-log) and [Lists](../concepts.md#lists).",
    (Listed("sojourn", ("Event", "DELETE", "EventQuery", "Page")),),
)

LIFECYCLE = ReferencePage(
    "lifecycle.md",
    "Lifecycle, expiry and end",
    "Phases and what moves them, deadlines, end hooks, the reaper. See\n"
    "[The lifecycle](../concepts.md#the-lifecycle) and [Operations](../operations.md).",
    (
        Listed("sojourn", ("Phase", "Trigger", "TRANSITIONS", "Expiry")),
        Listed("sojourn.ports", ("Hook", "Cleaner")),
        Listed("sojourn", ("Reaper",)),
    ),
)

HISTORY = ReferencePage(
    "history.md",
    "History",
    "Chat messages over a log. [History](../history.md) explains it with examples.",
    (
        Listed("sojourn", ("History", "LastMessages", "TokenBudget", "RollingSummary", "Summary")),
        Listed("sojourn.history", ("Message", "Strategy")),
        Listed("sojourn.history.strategies", ("Count", "Summarize")),
    ),
)

CHECKPOINTS = ReferencePage(
    "checkpoints.md",
    "Checkpoints",
    "Saved bytes, each with the one that it came from. [Checkpoints](../checkpoints.md) explains\n"
    "them with examples.",
    (
        Listed("sojourn", ("Checkpoints", "Checkpoint")),
        Listed("sojourn.checkpoints", ("Pruned",)),
        Listed("sojourn.checkpoints.keeping", ("Source",)),
    ),
)

DOCUMENTS = ReferencePage(
    "documents.md",
    "Documents",
    "Named bytes of a session or an app. See [Documents](../concepts.md#documents).",
    (Listed("sojourn", ("Documents", "Document")),),
)

SCOPES = ReferencePage(
    "scopes.md",
    "Scopes, leases and background work",
    "Code that works inside a session. [Scopes and background work](../scopes.md) explains it\n"
    "with examples.",
    (
        Listed("sojourn", ("Scope", "current_session", "current_scope", "carry", "Lease")),
        Listed("sojourn", ("run_in_scope", "in_scope", "ScopedExecutor")),
        Listed("sojourn", ("Background",)),
        Listed("sojourn.background", ("Job", "OnError")),
        Listed("sojourn", ("parallel_map",)),
        Listed("sojourn.dishka", ("SojournProvider", "SessionId")),
    ),
)

WEB = ReferencePage(
    "web.md",
    "Sessions for the web",
    "The ASGI middleware and what requests hold. [Sessions for the web](../web.md) explains it\n"
    "with examples.",
    (
        Listed("sojourn.web", ("SessionMiddleware", "Cookie", "Header", "Cap", "WebSession")),
        Listed("sojourn.web.asgi", ("Policy",)),
        Listed("sojourn.web", ("Auth", "Flash", "Devices", "DeviceSession", "Notice", "Source")),
        Listed("sojourn.web.notices", ("Kind", "Listener", "Notices")),
        Listed("sojourn.web", ("Admission",)),
        Listed("sojourn.web.admission", ("Reply",)),
        Listed("sojourn.web.tokens", ("Tokens", "Token")),
    ),
)

STARLETTE = ReferencePage(
    "starlette.md",
    "Starlette and FastAPI",
    "Dependencies, and errors as responses. [FastAPI](../fastapi.md) explains them with examples.",
    (
        Listed(
            "sojourn.web.starlette",
            (
                "session_of",
                "get_session",
                "require_user",
                "require_recent_auth",
                "require_csrf",
                "exception_handlers",
            ),
        ),
    ),
    borrowed=True,
)

LITESTAR = ReferencePage(
    "litestar.md",
    "Litestar",
    "The plugin, guards and a store. [Litestar](../litestar.md) explains them with examples.",
    (
        Listed(
            "sojourn.web.litestar",
            (
                "SessionPlugin",
                "SessionConfig",
                "session_of",
                "requires_user",
                "requires_recent_auth",
                "requires_csrf",
            ),
        ),
        Listed("sojourn.web.litestar_store", ("Store",)),
    ),
    borrowed=True,
)

FLASK = ReferencePage(
    "flask.md",
    "Flask",
    "The session interface. [Flask](../flask.md) explains it with examples.",
    (Listed("sojourn.web.flask", ("SojournSessions", "session", "Session")),),
    borrowed=True,
)

DJANGO = ReferencePage(
    "django.md",
    "Django",
    "The session engine and its middleware. [Django](../django.md) explains them with examples.",
    (
        Listed("sojourn.web.django", ("SessionStore", "SojournMiddleware", "devices")),
        Listed("sojourn.web.blocking", ("Devices",)),
    ),
    borrowed=True,
)

IDENTITY = ReferencePage(
    "identity.md",
    "Sessions of whoever asks",
    "Sessions by user or API key, without a token.\n"
    "[FastAPI](../fastapi.md#identity-without-cookies) explains them with an example.",
    (
        Listed(
            "sojourn.web.identity",
            (
                "IdentityMiddleware",
                "authenticated_user",
                "Who",
                "Identify",
                "CheckKey",
                "Stranger",
                "API_KEY_HEADER",
                "MAX_API_KEY",
            ),
        ),
    ),
)

FORGERY = ReferencePage(
    "csrf.md",
    "Forgery",
    "What requests have to send back. See [Sessions for the web](../web.md).",
    (
        Listed(
            "sojourn.web.csrf",
            (
                "CSRF_HEADER",
                "CSRF_FIELD",
                "SAFE_METHODS",
            ),
        ),
    ),
)

STARSESSIONS = ReferencePage(
    "starsessions.md",
    "starsessions",
    "A store for its middleware. See [Sessions for the web](../web.md).",
    (Listed("sojourn.web.starsessions", ("SessionStore", "BROWSER_SECONDS")),),
    borrowed=True,
)

INJECTION = ReferencePage(
    "dishka.md",
    "dishka in ASGI",
    "Scopes of a container around requests. See [Sessions for the web](../web.md).",
    (Listed("sojourn.web.dishka", ("ContainerMiddleware", "WebProvider", "CONTAINER")),),
)

JOBS = ReferencePage(
    "jobs.md",
    "taskiq and arq",
    "Jobs that work in a session. [Scopes](../scopes.md#taskiq) explain them with examples.",
    (
        Listed("sojourn.taskiq", ("SessionCarrier", "get_session", "LABEL")),
        Listed("sojourn.arq", ("carried", "in_session", "ARGUMENT", "SESSIONS")),
    ),
    borrowed=True,
)

BLOCKING = ReferencePage(
    "blocking.md",
    "The sync face",
    "The same verbs without `await`; [The sync face](../blocking.md) explains them with examples.\n"
    "What a verb does is said where the async one is explained; here is said what differs.",
    (
        Listed(
            "sojourn.blocking",
            (
                "SessionManager",
                "History",
                "Checkpoints",
                "Documents",
                "Lease",
                "Reaper",
                "Background",
                "parallel_map",
                "Store",
                "Iteration",
                "Hook",
                "Cleaner",
                "timeout",
            ),
        ),
        Listed("sojourn.blocking.background", ("Job", "OnError")),
    ),
    mirrors="sojourn",
)

SETTINGS = ReferencePage(
    "settings.md",
    "Settings",
    "Managers made from settings. [Settings](../settings.md) lists what can be set, and where.",
    (
        Listed("sojourn.app", ("open_sessions", "open_blocking_sessions", "store_url")),
        Listed("sojourn.settings", ("load_settings", "Settings", "Described")),
    ),
)

TELEMETRY = ReferencePage(
    "telemetry.md",
    "Telemetry",
    "Observers of a store. [Telemetry](../telemetry.md) explains them with examples.",
    (
        Listed(
            "sojourn.telemetry",
            (
                "LoggingObserver",
                "OpenTelemetryObserver",
                "PrometheusObserver",
                "Observer",
                "Call",
                "Outcome",
                "Result",
                "ObservedStore",
                "Fingerprint",
            ),
        ),
    ),
)

TRANSFER = ReferencePage(
    "transfer.md",
    "Moving sessions",
    "Exports, imports, copies. [Moving sessions](../transfer.md) explains them with examples.",
    (
        Listed(
            "sojourn.transfer",
            (
                "export_sessions",
                "Exported",
                "import_sessions",
                "Imported",
                "copy",
                "Copied",
                "Refusal",
                "Progress",
                "checksum",
            ),
        ),
        Listed("sojourn.transfer.files", ("Place",)),
    ),
)

TESTING = ReferencePage(
    "testing.md",
    "Testing",
    "What is shipped for tests: of code that uses Sojourn, and of stores.\n"
    "[Testing](../testing.md) explains it with examples.",
    (
        Listed("sojourn.testing", ("FakeClock", "SequenceIds", "FaultyStore", "Armed", "Call")),
        Listed("sojourn.testing", ("Fault",)),
        Listed("sojourn.testing.faults", ("Fail", "Cut", "Lose", "Repeat", "Cancel", "Delay")),
        Listed("sojourn.testing.faults", ("Until",)),
        Listed("sojourn.testing", ("RandomFaults",)),
        Listed("sojourn.testing.faulty", ("Plan",)),
        Listed("sojourn.testing", ("check_store", "Report", "Outcome")),
        Listed("sojourn.testing.conformance", ("Factory", "Again", "Verdict")),
        Listed("sojourn.testing", ("LAWS", "law_names")),
        Listed("sojourn.testing.plugin", ("StoreLaws",)),
        Listed("sojourn.testing", ("simulate", "rehearse", "Run", "Violation")),
        Listed("sojourn.testing", ("SimulatedLoop", "Stuck")),
    ),
)

STORE = ReferencePage(
    "store.md",
    "The store contract",
    "For those who write a store. [Writing a store](../stores.md) is where to begin.",
    (
        Listed("sojourn.store", ("Store",)),
        Listed(
            "sojourn.store",
            ("Create", "TierDelta", "Fork", "Change", "Deadlines", "Put", "Drop", "Move"),
        ),
        Listed("sojourn.store", ("Retry", "Committed", "Get", "Query", "Listed", "Touch")),
        Listed("sojourn.store", ("Delete", "Due", "Tiers", "DocumentQuery")),
        Listed("sojourn.model", ("Header", "Record", "Draft", "Entry", "StoredDocument")),
        Listed("sojourn.model", ("Encoded",)),
        Listed("sojourn.store", ("SupportsWatch", "Subscription", "SupportsLease", "Acquire")),
        Listed(
            "sojourn.store",
            ("Renew", "SupportsCheck", "SupportsBackup", "SupportsTransfer", "Walk"),
        ),
        Listed("sojourn.store", ("Headers", "Dumped", "Snapshot", "Shared", "Tier")),
        Listed("sojourn.store", ("Restore", "RestoreShared", "Placed", "place_of")),
    ),
)

REFERENCE = (
    MANAGER,
    SESSION,
    EVENTS,
    LIFECYCLE,
    HISTORY,
    CHECKPOINTS,
    DOCUMENTS,
    SCOPES,
    WEB,
    STARLETTE,
    LITESTAR,
    FLASK,
    DJANGO,
    IDENTITY,
    FORGERY,
    STARSESSIONS,
    INJECTION,
    JOBS,
    BLOCKING,
    SETTINGS,
    TELEMETRY,
    TRANSFER,
    TESTING,
    STORE,
)

INTERNAL = {
    "SessionManager": {"ending", "scopes"},
    "Session": {
        "accessed",
        "settle",
        "header",
        "committed",
        "bound",
        "seen",
        "reloaded",
        "scopes",
        "adopt",
    },
    "State": {
        "belongs_to",
        "delta",
        "writes",
        "saved",
        "applied",
        "rebased",
        "set_temporary",
        "reload",
        "loaded_tier",
        "changed",
        "peek",
        "take",
    },
    "WebSession": {
        "accessed",
        "begun",
        "erase",
        "held",
        "issued",
        "leaving",
        "mark_accessed",
        "over",
        "plan",
        "seal",
        "sealed",
        "source",
        "token",
    },
    "Admission": {"begin", "change", "end", "entering", "notify", "settle", "unavailable"},
    "Devices": {"beside", "keep_newest", "login_place"},
    "Scope": {"begin", "leave", "live_around", "ends", "owner"},
    "Lease": {"keep"},
    "Job": {"run", "succeeded", "failed", "context", "settled", "outcome"},
    "EventQuery": {"since_instant"},
    "LastMessages": {"page", "window"},
    "TokenBudget": {"page", "window"},
    "RollingSummary": {"bound", "seconds", "weigh", "shown"},
    "Armed": {"meets"},
    "StoreLaws": {"pytest_generate_tests", "test_law", "test_what_the_store_is_without_is_so"},
    "SimulatedLoop": {
        "time",
        "call_soon",
        "call_soon_threadsafe",
        "call_at",
        "run_in_executor",
        "create_task",
    },
    "SessionCarrier": {"pre_send", "pre_execute", "post_execute", "shutdown"},
    "SessionPlugin": {"on_app_init"},
    "SessionConfig": {"sessions", "key", "exclude", "exclude_opt_key", "scopes"},
    "SojournMiddleware": {"process_request", "process_exception"},
    "SojournSessions": {
        "admissions",
        "clear_site_data",
        "expiry",
        "make_null_session",
        "open_session",
        "save_session",
        "transport",
    },
    "SessionStore": {
        "seal",
        "aload",
        "asettle",
        "issued",
        "load",
        "others",
        "required",
        "settle",
        "trouble",
        "unsaved",
    },
    "IdentityMiddleware": {"is_open", "save"},
    "SojournProvider": {"session_id", "manager", "ambient", "named", "request"},
}
"""Members whose names are public because other modules of the library use them; not for callers."""

INTERNAL |= {
    f"{kind}Observer": {"started", "finished"}
    for kind in ("Logging", "OpenTelemetry", "Prometheus")
}
INTERNAL |= {
    fault: {"before", "after", "may_meet", "sends"}
    for fault in ("Fail", "Cut", "Lose", "Repeat", "Cancel", "Delay")
}

CONTRACT = {"FaultyStore", "ObservedStore"}
"""Stores around a store: their verbs are those of `Store`, and told there."""
