"""Who may import whom: the table of the house, each line with its reason."""

from __future__ import annotations

import pytest

from .source import Module, every_module, modules

# part -> (what of ours it may import besides itself, why no more)
TABLE: dict[str, tuple[set[str], str]] = {
    "shieldd.model": (set(), "what flows knows nobody, so that everybody may know it"),
    "shieldd.errors": (set(), "an error must be raisable anywhere without a cycle"),
    "shieldd.native": ({"model", "errors"}, "the typed face of the core; policy and effects are its callers'"),
    "shieldd.config": ({"model", "errors"}, "a snapshot is checked without the daemon"),
    "shieldd.detect": (
        {"model", "errors", "native.observe"},
        "it decides: state, input and `now` come in, decisions go out, so it is tested and replayed without a host",
    ),
    "shieldd.watch": ({"model", "errors", "native", "config"}, "a source sees; it does not judge, act or record"),
    "shieldd.respond": ({"model", "errors", "native", "config"}, "an actor acts; what for was decided elsewhere"),
    "shieldd.store": ({"model", "errors", "native", "config"}, "it records; it must open when all else is broken"),
    "shieldd.keys": ({"model", "errors", "native", "config"}, "keys stay apart from whoever uses them"),
    "shieldd.actors": ({"model", "errors", "native"}, "it says who acted; what that means is the guard's affair"),
    "shieldd.scan": ({"model", "errors", "native", "config"}, "it reads files by descriptor and says what matched"),
    "shieldd.api": ({"model", "errors", "config"}, "the edge speaks to the engine's contract, not to the parts"),
    "shieldd.contracts": ({"model", "errors"}, "what the loop needs of its parts names none of them"),
    "shieldd.pipeline": (
        {"model", "errors", "contracts"},
        "the product as one loop: it knows the parts by their contracts alone",
    ),
    "shieldd.custody": (
        {"model", "errors", "native", "config", "respond", "store"},
        "it keeps what may have to come back; what to do about an attack is decided elsewhere",
    ),
    "shieldd.holding": (
        {"model", "errors", "config", "native", "hold", "respond"},
        "it says whether writers are held here, and what that means; verdicts come from containment",
    ),
    "shieldd.lookout": ({"model", "errors"}, "a queue and its thread; what scans is handed to it"),
    "shieldd.learn": (
        {"model", "errors", "native", "detect", "watch"},
        "training sees what the daemon sees, and no more",
    ),
    "shieldd.hold": ({"model", "errors", "native"}, "it keeps two processes going; verdicts and vaults come to it"),
    "shieldd.answerer": ({"errors", "native"}, "it starts in the middle of an attack: as little as can be"),
    "shieldd.logs": ({"model", "errors"}, "logging works before anything else does"),
    "shieldd.service": ({"errors"}, "the service manager's protocol needs nothing of ours"),
}

# part -> {module that it must not import: why}
BANS: dict[str, dict[str, str]] = {
    "shieldd.detect": {
        "time": "now is an argument: a decision can be replayed",
        "socket": "deciding does no I/O beyond the model file",
        "sqlite3": "deciding does no I/O beyond the model file",
        "subprocess": "deciding does no I/O beyond the model file",
        "random": "a decision is a function of its input",
        "threading": "the pipeline owns the threads",
    },
    "shieldd": {
        "shieldctl": "the daemon does not know its client",
    },
}

#: modules that make code of data; nothing in the repository imports one
CODE_FROM_DATA = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}

CLIENT_KNOWS = ("shieldctl", "shieldd.model", "shieldd.errors", "shieldd.__version__")

# modules that compose the parts; the rest of the house must not import them
TOPS = ("shieldd.__main__", "shieldd.compose", "shieldd.pipeline", "shieldd.engine")
#: part of the composition, started by it
BESIDE_TOPS = ("shieldd.selftest", "shieldd.recovery")


def _within(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")


def _ours(module: Module) -> set[str]:
    return {name for name in module.imports() if _within(name, "shieldd") or _within(name, "shieldctl")}


@pytest.mark.parametrize("part", TABLE)
def test_a_part_imports_only_what_the_table_allows(part: str) -> None:
    allowed, reason = TABLE[part]
    wrong: list[str] = []
    for module in modules("shieldd"):
        if not _within(module.name, part):
            continue
        for name in _ours(module):
            if module.name == "shieldd.native._abi" and _within(name, "shieldd._native"):
                continue
            if name == "shieldd.__version__":
                continue
            fine = _within(name, part) or any(_within(name, f"shieldd.{other}") for other in allowed)
            if not fine:
                wrong.append(f"{module.path} imports {name}")
    assert not wrong, f"{reason}:\n" + "\n".join(sorted(wrong))


@pytest.mark.parametrize(("part", "banned"), [(part, name) for part, bans in BANS.items() for name in bans])
def test_a_part_keeps_its_bans(part: str, banned: str) -> None:
    wrong = [
        str(module.path)
        for module in modules(part.split(".", maxsplit=1)[0])
        if _within(module.name, part) and any(_within(name, banned) for name in module.imports())
    ]
    assert not wrong, f"{BANS[part][banned]}: {banned} in {wrong}"


def test_data_is_never_code() -> None:
    wrong = [
        f"{module.path} imports {name}"
        for module in every_module()
        for name in module.imports()
        if name.split(".", maxsplit=1)[0] in CODE_FROM_DATA
    ]
    assert not wrong, wrong


def test_only_the_abi_module_imports_the_compiled_core() -> None:
    wrong = [
        str(module.path)
        for package in ("shieldd", "shieldctl", "bench")
        for module in modules(package)
        if module.name != "shieldd.native._abi"
        and any(_within(name, "shieldd._native") or _within(name, "_native") for name in module.imports())
    ]
    assert not wrong, f"one module checks the ABI version and every status; past it nothing is checked: {wrong}"


def test_the_client_knows_only_the_model_and_the_errors() -> None:
    wrong = [
        f"{module.path} imports {name}"
        for module in modules("shieldctl")
        for name in _ours(module)
        if not any(
            _within(name, fine) for fine in ("shieldctl", "shieldd.model", "shieldd.errors", "shieldd.__version__")
        )
    ]
    assert not wrong, "the client works beside another version of the daemon, and starts fast:\n" + "\n".join(wrong)


def test_nobody_imports_the_composition() -> None:
    wrong = [
        f"{module.path} imports {name}"
        for module in modules("shieldd")
        if not any(_within(module.name, top) for top in TOPS + BESIDE_TOPS)
        for name in _ours(module)
        if any(_within(name, top) for top in TOPS)
    ]
    assert not wrong, "parts are handed what they need; they do not reach for the whole:\n" + "\n".join(wrong)


def test_training_is_no_part_of_the_daemon() -> None:
    wrong = [
        str(module.path)
        for module in modules("shieldd")
        if not _within(module.name, "shieldd.learn")
        and any(
            _within(name, heavy)
            for name in module.imports()
            for heavy in ("shieldd.learn", "jax", "gymnasium", "optax", "onnx")
        )
    ]
    assert not wrong, f"the service runs without shieldd[learn]: {wrong}"
