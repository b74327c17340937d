"""After a crash: finishes or rolls back what was cut off, and brings the lists in line with what lies on the disk."""

from __future__ import annotations

import os

import structlog

from shieldd.errors import ShieldError
from shieldd.model.contained import Holding
from shieldd.model.decision import ActionKind, Outcome
from shieldd.model.incident import TakenAction
from shieldd.native import envelope
from shieldd.respond import Ended, GuardedTree, Trees
from shieldd.respond.contain import Contain
from shieldd.respond.quarantine import SUFFIX, Quarantine
from shieldd.respond.seal import opens
from shieldd.store import SealedRecord, Store

NAMES_LOOKED_AT = 9  # of a sealed form: NAME.shield, NAME.2.shield, …
log = structlog.get_logger("shieldd.recovery")


def recover(
    store: Store,
    journal: envelope.Journal,
    keyring: envelope.Keyring,
    trees: Trees,
    quarantine: Quarantine,
    state_dir: bytes,
) -> None:
    """Converge: files first (the core's journal), then the inventories, then the acts that are still pending."""
    roots = {tree.root: tree.root_fd for tree in trees}
    roots[os.path.join(state_dir, b"quarantine")] = quarantine.directory_fd
    ended = journal.recover(roots, keyring)
    for one in ended:
        log.warning("an act that a crash cut off was ended", act=one.act.name.lower(), outcome=one.outcome.name.lower())
    # what processes it stopped is containment's to find out: `containments`
    pending = [x for x in store.pending() if x.kind is not ActionKind.CONTAIN]
    if ended or pending or store.fresh or store.reports:
        _sealed_again(store, keyring, trees, [(x.tree, x.path) for x in pending if x.kind in _FILE_ACTS])
        _, bad = quarantine.rebuild()
        for object_id, error in bad:
            log.error("an object in quarantine cannot be read", id=object_id, code=error.code)
        present = set(quarantine.objects())
        store.quarantine.remove([x.id for x in store.quarantine.list(limit=100_000).items if x.id not in present])
    if pending:
        held = {x.id for x in store.quarantine.list(limit=100_000).items}
        store.finish([_closed(store, trees, held, x) for x in pending])
        log.warning("acts that a crash cut off were closed", count=len(pending))


def containments(store: Store, contain: Contain) -> None:
    """Take over what an earlier run holds, then close the acts that it could not close, by what is held now."""
    pending = [x for x in store.pending() if x.kind is ActionKind.CONTAIN]
    contain.recover()
    ended: list[Ended] = []
    for act in pending:
        found = contain.of(act.threat_id)
        if found is not None and found.state is Holding.HELD and not act.reason.startswith(("release:", "kill:")):
            ended.append(Ended(act.id, Outcome.DONE, f"{act.reason}; finished after a crash", act.undo))
        else:
            reason = f"{act.reason}: interrupted by a crash (shieldctl threats show says what is held)"
            ended.append(Ended(act.id, Outcome.FAILED, reason, ""))
    if ended:
        store.finish(ended)
        log.warning("containments that a crash cut off were closed", count=len(ended))


_FILE_ACTS = (ActionKind.SEAL, ActionKind.OPEN)


def _closed(store: Store, trees: Trees, held: set[str], act: TakenAction) -> Ended:
    """How an act ended that was cut off before it said so: by what lies on the disk now."""
    reason = f"{act.reason}; finished after a crash"
    if act.kind is ActionKind.QUARANTINE and act.undo.rpartition(" ")[2] in held:
        return Ended(act.id, Outcome.DONE, reason, act.undo)
    if act.kind is ActionKind.SEAL and act.tree < len(trees):
        # an older seal of a file of that name may lie beside it: only one made since is this act's
        found = [x for x in (store.files.get(act.tree, name) for name in _names(act.path)) if x is not None]
        ours = next((x for x in found if x.original == act.path and x.sealed_at_ns >= act.at_ns), None)
        if ours is not None:
            return Ended(act.id, Outcome.DONE, reason, opens(trees[act.tree], ours.path))
    reason = "interrupted by a crash; the file is whole, in the clear or sealed (shieldctl files status)"
    return Ended(act.id, Outcome.FAILED, reason, "")


def _sealed_again(store: Store, keyring: envelope.Keyring, trees: Trees, touched: list[tuple[int, bytes]]) -> None:
    """Look at what the interrupted acts were about, and note what is sealed there and what is not."""
    for index, path in touched:
        if index >= len(trees):
            continue
        for sealed in [path] if path.endswith(SUFFIX) else _names(path):
            _noted(store, keyring, trees[index], sealed)


def _names(path: bytes) -> list[bytes]:
    """The names that the core gives to a sealed form, the first that are free (longer ones than 255 bytes aside)."""
    return [path + SUFFIX, *(path + b".%d" % turn + SUFFIX for turn in range(2, NAMES_LOOKED_AT + 1))]


def _noted(store: Store, keyring: envelope.Keyring, tree: GuardedTree, sealed: bytes) -> None:
    try:
        found = envelope.metadata(tree.root_fd, sealed, keyring)
        head = envelope.header(tree.root_fd, sealed)
    except ShieldError:
        if store.files.get(tree.index, sealed) is not None:
            store.files.remove([(tree.index, sealed)])
        return
    store.files.upsert(
        [
            SealedRecord(
                tree=tree.index,
                path=sealed,
                original=found.path,
                size=found.size,
                sealed_at_ns=found.sealed_at_ns,
                why=found.why,
                threat_id="",
                file_id=found.file_id,
                key_id=head.recipients[0].key_id,
                key_version=head.recipients[0].version,
                digest=found.blake3,
                generation=head.generation,
            )
        ]
    )
