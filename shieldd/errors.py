"""One error for everything: a stable code, a sentence, and the next command.

The table below is the whole list; `shieldctl(1)` prints it and a test compares the two. Codes never change
their meaning. Text is lower case without a full stop; it never holds file content or key material.
Exit statuses: 1 failed, 2 usage, 3 daemon not running, 4 no such object, 5 denied, 6 findings or degraded,
7 configuration invalid.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Entry(NamedTuple):
    """What a code stands for: process exit status, HTTP status, title, and the hint (next command) if there is one."""

    exit: int
    http: int
    title: str
    hint: str = ""


CODES: Final[dict[str, Entry]] = {
    # the native core itself
    "native.abi": Entry(1, 500, "compiled core and package do not fit", "reinstall shieldd"),
    "native.panic": Entry(1, 500, "fault inside the compiled core", "report it with the output of: shieldctl doctor"),
    "native.argument": Entry(1, 500, "compiled core called with a wrong argument"),
    # the sealed file, by the layer that refuses (shield-envelope(5))
    "envelope.magic": Entry(1, 422, "not a sealed file"),
    "envelope.slot": Entry(1, 422, "header slot is malformed"),
    "envelope.crc": Entry(1, 422, "no header slot is whole"),
    "envelope.suite": Entry(1, 422, "unknown cipher suite"),
    "envelope.recipient": Entry(1, 422, "no key of ours is among the recipients", "shieldctl keys list"),
    "envelope.header-mac": Entry(1, 422, "header was tampered with"),
    "envelope.commitment": Entry(1, 422, "key does not commit to this file"),
    "envelope.metadata": Entry(1, 422, "sealed metadata was tampered with or is malformed"),
    "envelope.chunk": Entry(1, 422, "content was tampered with"),
    "envelope.truncated": Entry(1, 422, "sealed file is cut short"),
    "envelope.trailing": Entry(1, 422, "bytes after the end of the sealed file"),
    "envelope.already": Entry(1, 409, "file is sealed already"),
    # the configuration; each sentence is file:key: reason, all problems of a file at once
    "config.missing": Entry(
        7, 404, "configuration file is missing", "shieldd --config FILE, or: shieldd run --protect DIR"
    ),
    "config.unreadable": Entry(7, 403, "configuration file cannot be read"),
    "config.unsafe": Entry(7, 403, "configuration file may be written by others", "chown root FILE && chmod go-w FILE"),
    "config.syntax": Entry(7, 422, "configuration file is not TOML"),
    "config.key": Entry(7, 422, "unknown key in the configuration", "man shieldd.toml"),
    "config.value": Entry(7, 422, "wrong value in the configuration", "man shieldd.toml"),
    "config.tree": Entry(7, 422, "a tree in the configuration cannot be guarded", "man shieldd.toml"),
    # the store and the state directory
    "daemon.self-test": Entry(1, 500, "self-test at start failed", "shieldd --version"),
    "daemon.thread": Entry(1, 500, "a thread of the daemon died", "systemctl restart shieldd"),
    "daemon.late": Entry(1, 503, "the decision loop is late", "shieldctl doctor"),
    "respond.full": Entry(1, 503, "too many acts wait; some were not done", "shieldctl threats list"),
    # stopping the processes behind an attack
    "contain.none": Entry(4, 404, "no process of that threat is held", "shieldctl threats show ID"),
    "contain.gone": Entry(1, 409, "the process is gone, or another has its number"),
    "contain.spared": Entry(1, 409, "the processes may never be contained; they go on", "man shieldd.toml"),
    "contain.denied": Entry(5, 403, "the kernel does not let us signal the process", "CAP_KILL for the daemon"),
    "contain.partial": Entry(6, 500, "not every process of an attack could be stopped", "shieldctl threats show ID"),
    "contain.woken": Entry(6, 500, "a stopped process was woken; it was stopped again", "shieldctl threats show ID"),
    "contain.cgroup": Entry(1, 409, "the control group was not frozen"),
    "alerts.full": Entry(1, 503, "alerts come faster than they can be recorded", "shieldctl threats list"),
    "policy.off": Entry(1, 409, "no policy is in force", "shieldctl policy show"),
    "policy.failed": Entry(1, 500, "the policy failed; hard rules alone", "shieldctl policy evaluate"),
    "watch.overflow": Entry(6, 503, "events were lost; the tree is rescanned", "shieldctl status"),
    "store.lost": Entry(6, 503, "some events could not be recorded", "shieldctl doctor"),
    "watch.away": Entry(6, 503, "files changed while nobody watched", "shieldctl alerts"),
    "watch.gone": Entry(6, 503, "a guarded tree went away", "shieldctl status"),
    "daemon.running": Entry(1, 409, "another daemon uses this state directory", "shieldctl status"),
    "store.newer": Entry(1, 409, "store was written by a newer version", "install that version of shieldd again"),
    "store.damaged": Entry(1, 500, "store is damaged; it was set aside, nothing was deleted", "shieldctl doctor"),
    "store.full": Entry(1, 507, "no space left for the store; nothing that needs a record is done until there is"),
    "store.io": Entry(1, 500, "input/output error on the store"),
    "store.unsafe": Entry(1, 403, "state directory or store is open to others", "chmod 0700 the state directory"),
    "store.closed": Entry(1, 503, "store is closed"),
    "store.value": Entry(1, 400, "record or filter is not acceptable to the store"),
    "store.busy": Entry(1, 503, "store did not answer in time", "shieldctl doctor"),
    # what is remembered of files
    "baseline.corrupt": Entry(1, 500, "stored fingerprints are damaged; files are learned anew"),
    "baseline.version": Entry(1, 500, "stored fingerprints are of another version; files are learned anew"),
    # keys
    "keys.version": Entry(1, 422, "unknown key version", "shieldctl keys list"),
    "keys.locked": Entry(1, 503, "keystore is locked"),
    "keys.store": Entry(1, 500, "keystore is damaged", "restore it from a backup of the state directory"),
    "keys.unlock": Entry(1, 403, "wrong passphrase or key for the keystore"),
    "keys.rollback": Entry(1, 500, "keystore is older than the store knows", "restore the latest keystore from backup"),
    "keys.missing": Entry(1, 500, "keystore is missing though the store knows one", "restore it from a backup"),
    "keys.newer": Entry(1, 409, "keystore was written by a newer version", "install that version of shieldd again"),
    "keys.secret": Entry(7, 403, "unlock secret is missing or unusable", "man shieldd.toml, section keys"),
    "keys.unsafe": Entry(1, 403, "keystore or key file is open to others", "chmod 0600 it, chown it to the daemon"),
    "keys.busy": Entry(1, 409, "another rotation is under way", "shieldctl keys list"),
    "keys.state": Entry(1, 409, "key version is not in a state that allows this", "shieldctl keys list"),
    "keys.wrapped": Entry(1, 422, "wrapped key was tampered with or belongs elsewhere"),
    "keys.provider": Entry(1, 503, "key provider does not answer", "shieldctl keys providers"),
    "keys.purpose": Entry(2, 400, "no such key purpose", "one of: files, quarantine, preserve, audit"),
    "keys.full": Entry(1, 507, "no space left for the keystore; the old one stands"),
    "keys.io": Entry(1, 500, "input/output error on the keystore; the old one stands"),
    # sources of events
    "watch.stopped": Entry(1, 503, "the watcher was stopped"),
    "watch.root": Entry(4, 404, "the root of a guarded tree cannot be followed", "shieldctl config check"),
    "watch.limit": Entry(1, 503, "no inotify instance is left", "sysctl fs.inotify.max_user_instances=1024"),
    "watch.unsupported": Entry(1, 501, "this system cannot watch files so"),
    "watch.failed": Entry(1, 500, "the watcher cannot run"),
    "watch.hold": Entry(1, 503, "writers are not held before they write", "journalctl -u shieldd"),
    "hold.unsupported": Entry(
        1, 501, "this system cannot hold an open", "it needs CAP_SYS_ADMIN and a kernel with fanotify permission events"
    ),
    "hold.filesystem": Entry(1, 422, "opens on this file system may wait for another machine and are not held"),
    "hold.deadlock": Entry(1, 500, "our own directories cannot be left out of what is held"),
    "hold.failed": Entry(1, 500, "the answerer of held opens failed", "journalctl -u shieldd"),
    "hold.lost": Entry(6, 500, "writers went on without a version of before", "shieldctl status"),
    "hold.verdicts": Entry(1, 503, "too many actors are judged at one time"),
    "actors.proc": Entry(1, 500, "processes cannot be looked at", "mount | grep proc"),
    "watch.trace": Entry(1, 422, "not a whole trace of this program"),
    "watch.trace-version": Entry(1, 422, "trace is of another version or schema", "record it again"),
    # files by descriptor
    "file.outside": Entry(1, 403, "path is not inside a guarded tree", "shieldctl status"),
    "file.missing": Entry(4, 404, "no such file"),
    "file.denied": Entry(5, 403, "permission denied by the file system"),
    "file.not-regular": Entry(1, 422, "not a regular file"),
    "file.directory": Entry(1, 422, "is a directory"),
    "file.symlink": Entry(1, 422, "a symbolic link is on the way"),
    "file.hardlinks": Entry(1, 409, "file has other hard links; its content would stay open under them"),
    "file.mount": Entry(1, 422, "a mount point is on the way"),
    "file.changed": Entry(1, 409, "file changed while it was worked on; nothing was done to it"),
    "file.busy": Entry(1, 409, "a program has the file open for writing; nothing was done to it"),
    "file.exists": Entry(
        1, 409, "something is there already; it was not overwritten", "name another directory with --to"
    ),
    "file.immutable": Entry(1, 409, "file is immutable or append-only"),
    "file.full": Entry(1, 507, "no space left; nothing was lost"),
    "file.readonly": Entry(1, 409, "file system is read-only"),
    "file.io": Entry(1, 500, "input/output error"),
    "file.name": Entry(2, 400, "not a usable file name"),
    "file.budget": Entry(1, 413, "file is beyond the configured limit"),
    "file.canary": Entry(1, 409, "that is one of our canary files", "set canaries = 0 for the tree to have none"),
    "file.race": Entry(1, 409, "path was swapped while it was worked on; nothing was done"),
    # preserved versions; each refusal leaves the file as it is, and says that this version of it was not kept
    "preserve.off": Entry(1, 409, "no versions are preserved here", "man shieldd.toml, section preserve"),
    "preserve.unsafe": Entry(1, 403, "the vault's directory is not ours alone; it is not used", "shieldctl status"),
    "preserve.space": Entry(6, 507, "too little space is free; no copies are made until there is", "shieldctl status"),
    "preserve.quota": Entry(6, 507, "the quota is used up by versions that must stay", "shieldctl threats list"),
    "preserve.full": Entry(6, 507, "the vault holds as many versions as it may", "man shieldd.toml, section preserve"),
    "preserve.large": Entry(1, 413, "file is too large to be copied whole"),
    "preserve.unsupported": Entry(1, 501, "this file system cannot keep versions so", "shieldctl status"),
    "preserve.missing": Entry(4, 404, "no such version", "shieldctl versions list PATH"),
    "preserve.damaged": Entry(6, 500, "a preserved version is damaged or was tampered with", "shieldctl status"),
    # bringing preserved files back
    "restore.none": Entry(4, 404, "no version of that file is as old as that", "shieldctl versions list PATH"),
    "restore.version": Entry(1, 409, "preserved version is gone or not what it was", "shieldctl versions list PATH"),
    "restore.digest": Entry(1, 422, "preserved version does not have its content any more; nothing was written"),
    "restore.busy": Entry(1, 409, "another restore is under way", "shieldctl restore status INCIDENT"),
    "restore.done": Entry(1, 409, "that plan was done already; make a new one", "shieldctl restore plan INCIDENT"),
    # the learned policy: each refusal leaves the daemon on its hard rules
    "policy.missing": Entry(1, 503, "policy or manifest is missing", "shieldctl policy show"),
    "policy.size": Entry(1, 422, "policy is larger than the limit"),
    "policy.manifest": Entry(1, 422, "policy manifest is malformed"),
    "policy.signature": Entry(1, 422, "policy signature does not hold"),
    "policy.digest": Entry(1, 422, "policy is not the one that the manifest names"),
    "policy.model": Entry(1, 422, "policy cannot be read by the inference runtime"),
    "policy.shape": Entry(1, 422, "policy has other inputs or outputs than expected"),
    "policy.schema": Entry(1, 422, "policy was made for another observation schema"),
    "policy.self-test": Entry(1, 422, "policy does not reproduce its self-test"),
    "policy.output": Entry(1, 500, "policy gave numbers that are not finite"),
    "policy.key": Entry(1, 422, "public key of the policy is unreadable"),
    # signature scanning; a failed scan never leads to quarantine
    "scan.rules": Entry(7, 422, "signature rules do not compile"),
    "scan.digests": Entry(7, 422, "digest list is malformed"),
    "scan.time": Entry(1, 504, "scan ran out of time; the file was left alone"),
    "scan.io": Entry(1, 500, "file could not be read for scanning; it was left alone"),
    # the socket, by the door that refuses
    "api.denied": Entry(
        5, 403, "not allowed for this user", "run it as root, or ask for membership of the shieldd group"
    ),
    "api.not-found": Entry(4, 404, "no such object"),
    "api.ambiguous": Entry(4, 409, "more than one object has an id that begins so", "give more characters of the id"),
    "api.route": Entry(1, 404, "no such route", "curl --unix-socket SOCKET http://shieldd/openapi.json"),
    "api.http": Entry(1, 400, "not an HTTP/1.1 request"),
    "api.method": Entry(1, 405, "method not allowed on this route"),
    "api.invalid": Entry(2, 422, "request does not fit its model"),
    "api.json": Entry(2, 400, "request is not strict JSON"),
    "api.depth": Entry(2, 400, "request is nested too deeply"),
    "api.media": Entry(2, 415, "request body is not application/json"),
    "api.too-large": Entry(2, 413, "request body is larger than the limit (1 MiB as shipped)"),
    "api.timeout": Entry(1, 408, "request took too long to arrive"),
    "api.busy": Entry(1, 503, "too many connections", "try again in a moment"),
    "api.internal": Entry(1, 500, "fault inside the daemon", "journalctl -u shieldd"),
    "api.socket": Entry(1, 500, "socket cannot be made", "shieldctl ping tells whether another daemon has it"),
    # the command line
    "cli.unreachable": Entry(
        3, 503, "daemon is not running", "systemctl start shieldd, or name its socket with --socket"
    ),
    "cli.not-ready": Entry(3, 503, "daemon was not ready in time", "shieldctl doctor"),
    "cli.cut": Entry(1, 502, "answer ended early", "shieldctl doctor"),
    "cli.protocol": Entry(1, 502, "answer is not one of shieldd's"),
    "cli.usage": Entry(2, 400, "wrong usage", "shieldctl --help"),
    "cli.confirm": Entry(2, 400, "needs a yes, and there is no terminal to ask on", "add --yes"),
    "cli.aborted": Entry(1, 400, "not done"),
    "cli.interrupted": Entry(130, 499, "interrupted"),
    # the drill
    "drill.marker": Entry(1, 500, "not a marked scratch tree of this drill; nothing was done"),
    "drill.place": Entry(1, 409, "no guarded tree to rehearse in", "shieldctl drill --in DIR"),
    "drill.soon": Entry(1, 409, "the daemon contained here a moment ago and will not again yet"),
    "drill.tool": Entry(1, 500, "no attack tool is installed", "install openssl or gnupg"),
    "drill.unsettled": Entry(1, 504, "the daemon did not take note of the scratch tree in time", "shieldctl doctor"),
}


class ShieldError(Exception):
    """A failure with a stable code.

    Args:
        code: a key of `CODES`; an unknown one is a programming error and is reported as such.
        message: one sentence about this case; defaults to the code's title.
        errno: the operating system's error number behind it.
        path: the file concerned, as bytes; shown escaped, and only where the caller may see paths.
        hint: overrides the table's next command.
    """

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        errno: int | None = None,
        path: bytes | None = None,
        hint: str | None = None,
    ) -> None:
        entry = CODES[code]
        self.code = code
        self.errno = errno
        self.path = path
        self.message = message or entry.title
        self.hint = entry.hint if hint is None else hint
        self.exit_status = entry.exit
        self.http_status = entry.http
        super().__init__(code, self.message)

    def __str__(self) -> str:
        return self.message
