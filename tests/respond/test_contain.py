"""Containment from decision to a person's word: order, record, restart, release, kill; with real processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from shieldd import containment
from shieldd.config import Config
from shieldd.containment import BOOT_ID
from shieldd.errors import ShieldError
from shieldd.model.contained import Containment, Fate, Holding, Member, Sent, Signalled, Spared, Trait
from shieldd.model.decision import Action, ActionKind, Decision, Outcome, Severity, Verdict
from shieldd.model.held import HoldStatus
from shieldd.model.held import Verdict as Held
from shieldd.model.incident import Incident, State
from shieldd.native.actors import Actors
from shieldd.native.freeze import Freezer
from shieldd.respond import GuardedTree, Trees
from shieldd.respond.acts import ActPool
from shieldd.respond.contain import Contain
from shieldd.respond.containing import PROCESS_KEY, Means
from shieldd.respond.notes import Notes, Slip
from shieldd.store import ActionFilter, Store
from tests.respond.processes import Zoo, member, session, state, until
from tests.respond.test_acts_pool import Recorder, _batch

ACTOR = PROCESS_KEY | 7
TREES = Trees([GuardedTree(0, b"/guarded", -1)])
TWO = """
if os.fork() == 0: work("child")
while not os.path.exists("child"): pass
ready("ready"); work("top")
"""


def decision(actor: int = ACTOR) -> Decision:
    what, weight = Action.CONTAIN, Severity.CRITICAL
    return Decision(1, 0, actor, b"a", what, what, Verdict.PASSED, "destroyed", (), (), weight, "", 1, 1, 1)


def incident(threat: str = "threat01", actor: int = ACTOR) -> Incident:
    return Incident(threat, 1, 0, State.OPEN, Severity.CRITICAL, None, actor, 0, 1, 0, 1, 1, 0, (), ())


@dataclass
class World:
    """All that containment works with, but the processes: in memory, but for the store."""

    store: Store
    order: list[str] = field(default_factory=list)
    named: dict[int, list[Member]] = field(default_factory=dict)
    denied: set[int] = field(default_factory=set)
    can_deny: bool = True
    alerts: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    times: list[tuple[str, int, int]] = field(default_factory=list)
    freezer: object = None
    hold_s: float = 0.0
    hosts: set[int] = field(default_factory=set)

    def members(self, actor: int) -> Sequence[Member]:
        return list(self.named.get(actor, ()))

    def of_the_host(self, actor: int) -> bool:
        return actor in self.hosts

    def deny(self, actor: int) -> bool:
        self.order.append("deny")
        if self.can_deny:
            self.denied.add(actor)
        return self.can_deny

    def clear(self, actor: int) -> None:
        self.order.append("clear")
        self.denied.discard(actor)

    def alert(self, severity: Severity, text: str, threat_id: str, tree: int) -> None:
        self.alerts.append(text)

    def trouble(self, code: str, text: str) -> None:
        self.troubles.append(code)

    def stopped(self, threat_id: str, held_at_ns: int, contained_at_ns: int) -> None:
        self.times.append((threat_id, held_at_ns, contained_at_ns))

    def signals(self) -> Freezer:
        self.order.append("signal")
        self.freezer = self.freezer or Freezer()
        return self.freezer  # type: ignore[return-value]

    def begin(self, *, boot: str = "") -> Contain:
        """A containment as a start of the daemon would make it."""
        means = Means(
            self.signals, self, self, self.store.containments, self.store, Notes(self.store.state.fd), self, TREES,
            boot or BOOT_ID.read_text().strip(), lambda tree: self.hold_s,
        )  # fmt: skip
        return Contain(means)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Store(tmp_path / "state" / "shieldd.db", roots=[b"/guarded"]) as store:
        yield World(store)


@pytest.fixture
def zoo(scratch_tree: Path) -> Iterator[Zoo]:
    made = Zoo(scratch_tree)
    yield made
    made.end()


@pytest.fixture
def begin(world: World) -> Iterator[Callable[..., Contain]]:
    made: list[Contain] = []

    def again(**more: str) -> Contain:
        made.append(world.begin(**more))
        return made[-1]

    yield again
    for one in made:
        one.stop()


def test_an_attack_is_denied_stopped_recorded_and_told_in_that_order(
    world: World, zoo: Zoo, begin: Callable[..., Contain]
) -> None:
    top = zoo.start(TWO)
    world.named[ACTOR] = [member(top.pid)]
    held = begin().contain(decision(), incident())
    assert world.order[:2] == ["deny", "signal"]
    assert held is not None and len(held.stopped) == 2 and not zoo.advances("child")
    (action,) = world.store.actions(ActionFilter(threat_id="threat01")).items
    assert (action.kind, action.outcome) == (ActionKind.CONTAIN, Outcome.DONE)
    assert action.undo == "shieldctl threats release threat01"
    assert "2 processes stopped in " in action.reason and "opens denied" in action.reason
    kept = world.store.containments.of("threat01")
    assert kept is not None and kept.state is Holding.HELD and set(kept.stopped) == set(held.stopped)
    assert all(os.path.basename(x.exe).startswith(b"python") for x in kept.members)
    ((threat, held_ns, contained_ns),) = world.times
    assert threat == "threat01" and 0 < held_ns <= contained_ns
    assert world.alerts == [action.reason]


def test_release_lets_both_go_on_and_clears_the_verdict(world: World, zoo: Zoo, begin: Callable[..., Contain]) -> None:
    top = zoo.start(TWO)
    world.named[ACTOR] = [member(top.pid)]
    contain = begin()
    contain.contain(decision(), incident())
    over = contain.release("threat01", why="uid 0: our own job")
    until(lambda: zoo.advances("child") and zoo.advances("top"))
    assert over.state is Holding.RELEASED and not world.denied and contain.held() == ()
    last = world.store.actions(ActionFilter(threat_id="threat01")).items[-1]
    assert last.outcome is Outcome.DONE and "uid 0: our own job" in last.reason
    with pytest.raises(ShieldError) as caught:
        contain.release("threat01", why="again")
    assert caught.value.code == "contain.none"


def test_kill_ends_all_of_it_and_nobody_beside(world: World, zoo: Zoo, begin: Callable[..., Contain]) -> None:
    top, other = zoo.start(TWO), zoo.start('ready("other"); work("n")', ready="other")
    world.named[ACTOR] = [member(top.pid)]
    contain = begin()
    contain.contain(decision(), incident())
    over = contain.kill("threat01", actor=ACTOR, tree=0, why="uid 0: ransomware")
    assert over.state is Holding.KILLED and not session(top.pid) and not world.denied
    assert zoo.advances("n") and other.poll() is None
    assert "ransomware" in world.store.actions(ActionFilter(threat_id="threat01")).items[-1].reason


def test_kill_reaches_what_was_never_held(world: World, zoo: Zoo, begin: Callable[..., Contain]) -> None:
    top = zoo.start(TWO)
    world.named[ACTOR] = [member(top.pid)]
    assert begin().kill("threat01", actor=ACTOR, tree=0, why="x").state is Holding.KILLED
    world.named.clear()
    with pytest.raises(ShieldError) as caught:
        begin().kill("threat02", actor=ACTOR, tree=0, why="x")
    assert caught.value.code == "contain.none"


def test_a_restarted_daemon_finds_what_it_held(world: World, zoo: Zoo, begin: Callable[..., Contain]) -> None:
    top = zoo.start(TWO)
    world.named[ACTOR] = [member(top.pid)]
    first = begin()
    first.contain(decision(), incident())
    first.stop()
    assert state(top.pid) == "T", "a stop of the daemon releases nobody"
    world.denied.clear()  # the answerer is new too
    second = begin()
    second.recover()
    assert [x.threat_id for x in second.held()] == ["threat01"] and world.denied == {ACTOR}
    second.release("threat01", why="x")
    until(lambda: zoo.advances("child"))


def test_what_a_crash_hid_is_found_by_its_slip(world: World, zoo: Zoo, begin: Callable[..., Contain]) -> None:
    """Killed after the signal and before the record: the slip alone tells."""
    top = zoo.start(TWO)
    boot = BOOT_ID.read_text().strip()
    Notes(world.store.state.fd).write(Slip("threat09", 0, ACTOR, 5, boot, 0, (member(top.pid),)))
    Freezer().stop([member(top.pid)])
    contain = begin()
    contain.recover()
    found = world.store.containments.of("threat09")
    assert found is not None and found.state is Holding.HELD
    contain.release("threat09", why="x")
    until(lambda: zoo.advances("child"))
    assert Notes(world.store.state.fd).read() is None


def test_after_another_boot_it_is_told_as_gone(world: World, zoo: Zoo, begin: Callable[..., Contain]) -> None:
    top = zoo.start(TWO)
    world.named[ACTOR] = [member(top.pid)]
    begin().contain(decision(), incident())
    later = begin(boot="another")
    later.recover()
    assert later.held() == () and world.alerts[-1].startswith("nothing is held any more: the host was started again")
    kept = world.store.containments.of("threat01")
    assert kept is not None and kept.state is Holding.GONE


def test_a_process_that_ended_meanwhile_is_told(world: World, zoo: Zoo, begin: Callable[..., Contain]) -> None:
    top = zoo.start('ready("ready"); work("w")')
    world.named[ACTOR] = [member(top.pid)]
    contain = begin()
    contain.contain(decision(), incident())
    top.kill()
    top.wait(10)
    over = contain.release("threat01", why="x")
    assert over.state is Holding.GONE and [x.fate for x in over.members] == [Fate.GONE]


def test_what_has_a_time_ends_by_itself(world: World, zoo: Zoo, begin: Callable[..., Contain]) -> None:
    top = zoo.start(TWO)
    world.named[ACTOR], world.hold_s = [member(top.pid)], 0.2
    held = begin().contain(decision(), incident())
    assert held is not None and held.release_boot_ns
    until(lambda: not world.store.containments.held() and zoo.advances("child"))
    kept = world.store.containments.of("threat01")
    assert kept is not None and kept.state is Holding.RELEASED and "time is over" in kept.note


def test_who_is_woken_by_another_is_stopped_again(world: World, zoo: Zoo, begin: Callable[..., Contain]) -> None:
    top = zoo.start(TWO)
    world.named[ACTOR] = [member(top.pid)]
    contain = begin()
    contain.contain(decision(), incident())
    for pid in session(top.pid):
        os.kill(pid, 18)
    until(lambda: state(top.pid) != "T" or "contain.woken" in world.troubles)
    until(lambda: "contain.woken" in world.troubles and state(top.pid) == "T")
    assert not zoo.advances("child")


def test_who_comes_late_is_stopped_too(world: World, zoo: Zoo, begin: Callable[..., Contain]) -> None:
    first = zoo.start('ready("ready"); work("one")')
    world.named[ACTOR] = [member(first.pid)]
    contain = begin()
    contain.contain(decision(), incident())
    late = zoo.start('ready("late"); work("two")', ready="late")
    world.named[ACTOR].append(member(late.pid))
    contain.look_after()
    assert state(late.pid) == "T"
    contain.release("threat01", why="x")
    until(lambda: zoo.advances("one") and zoo.advances("two"))


def test_an_actor_without_a_living_process_stays_denied(world: World, begin: Callable[..., Contain]) -> None:
    """Short-lived children of one command: none lives at this moment, the next one is met all the same."""
    held = begin().contain(decision(), incident())
    assert held is not None and held.members == () and world.denied == {ACTOR}
    assert "whoever comes is denied and stopped" in world.alerts[0]


class Refusing:
    """The kernel says no, or everybody is spared."""

    def __init__(self, fate: Fate, spared: Spared = Spared.NOT) -> None:
        self.fate, self.spared = fate, spared

    def stop(self, members: Sequence[Member]) -> Sent:
        told = tuple(
            Signalled(x, 1, self.fate, self.spared, Trait(0), 1 if self.fate is Fate.DENIED else 0) for x in members
        )
        return Sent(told, 1, True, 1, 1)

    resume = kill = stop


def test_where_the_kernel_forbids_it_the_record_says_so(world: World, begin: Callable[..., Contain]) -> None:
    world.named[ACTOR], world.freezer, world.can_deny = [Member(77, 1)], Refusing(Fate.DENIED), False
    with pytest.raises(ShieldError) as caught:
        begin().contain(decision(), incident())
    assert caught.value.code == "contain.denied"
    (action,) = world.store.actions(ActionFilter(threat_id="threat01")).items
    assert action.outcome is Outcome.FAILED and "out of our reach" in action.reason


@pytest.mark.parametrize(("why", "kept"), [(Spared.LISTED, False), (Spared.SERVER, False), (Spared.MANAGER, True)])
def test_who_is_never_contained_goes_on(world: World, begin: Callable[..., Contain], why: Spared, kept: bool) -> None:
    world.named[ACTOR], world.freezer = [Member(77, 1)], Refusing(Fate.SPARED, why)
    held = begin().contain(decision(), incident())
    assert (held is not None) is kept and bool(world.denied) is kept
    (action,) = world.store.actions(ActionFilter(threat_id="threat01")).items
    assert action.outcome is (Outcome.DONE if kept else Outcome.SKIPPED) and "never contained" in action.reason


def test_a_store_that_refuses_delays_the_record_and_nothing_else(
    world: World, zoo: Zoo, begin: Callable[..., Contain], monkeypatch: pytest.MonkeyPatch
) -> None:
    top = zoo.start(TWO)
    world.named[ACTOR] = [member(top.pid)]
    contain = begin()
    real = world.store.intend

    def full(actions: object) -> None:
        raise ShieldError("store.full")

    monkeypatch.setattr(world.store, "intend", full)
    contain.contain(decision(), incident())
    assert state(top.pid) == "T" and "store.full" in world.troubles
    assert Notes(world.store.state.fd).read() is not None, "the slip stays until the record stands"
    monkeypatch.setattr(world.store, "intend", real)
    contain.look_after()
    assert [x.outcome for x in world.store.actions(ActionFilter(threat_id="threat01")).items] == [Outcome.DONE]
    assert Notes(world.store.state.fd).read() is None


def test_a_torn_slip_is_no_slip(world: World) -> None:
    notes = Notes(world.store.state.fd)
    assert notes.read() is None
    notes.write(Slip("t", 0, ACTOR, 1, "b", 0, (Member(5, 6),)))
    assert notes.read() == Slip("t", 0, ACTOR, 1, "b", 0, (Member(5, 6),))
    fd = os.open("holding", os.O_WRONLY, dir_fd=world.store.state.fd)
    os.pwrite(fd, b"?", 20)
    os.close(fd)
    assert notes.read() is None


def test_the_pool_denies_at_once_and_stops_before_all_that_waits(
    world: World, zoo: Zoo, begin: Callable[..., Contain]
) -> None:
    top = zoo.start(TWO)
    world.named[ACTOR] = [member(top.pid)]
    seal = Recorder()
    seal.go.clear()
    pool = ActPool(TREES, world.store, seal, seal, contain=begin(), workers=1, queue_limit=1)
    for name in (b"a", b"b", b"c"):
        waiting = Decision(
            2, 0, 1, name, Action.SEAL, Action.SEAL, Verdict.PASSED, "", (), (), Severity.HIGH, "", 1, 1, 1
        )
        pool.submit(waiting, incident(), _batch(name), 0)
    pool.submit(decision(), incident(), _batch(b"a"), 0)
    assert world.denied == {ACTOR}
    until(lambda: state(top.pid) == "T")
    seal.go.set()
    assert pool.settle(10)
    pool.close()


def test_without_attribution_the_guess_is_only_told(world: World) -> None:
    pool = ActPool(TREES, world.store, Recorder(), Recorder(), guess=lambda tree, path: "/usr/bin/openssl (pid 42)")
    pool.submit(decision(actor=1), incident(actor=1), _batch(b"a"), 0)
    assert pool.settle(10)
    (action,) = world.store.actions(ActionFilter(threat_id="threat01")).items
    assert action.outcome is Outcome.SKIPPED and action.reason.endswith("; a guess: /usr/bin/openssl (pid 42)")
    pool.close()


def test_the_real_grouping_and_the_real_signal_agree(zoo: Zoo) -> None:
    """Who the table of actors names is who is stopped, workers in sessions of their own included."""
    top = zoo.start("""
for i in range(3):
    if os.fork() == 0: work("w%d" % i)
while not os.path.exists("w2"): pass
ready("ready"); work("top")
""")
    table = Actors()
    key, _ = table.of(top.pid)
    assert key & PROCESS_KEY
    named = [Member(pid, start) for pid, start in table.members(key)]
    sent = Freezer().stop(named)
    assert sent.complete and {x.member.pid for x in sent.told} >= set(session(top.pid))
    assert not zoo.advances("w0") and not zoo.advances("top")
    assert [Member(*x) for x in table.members(key)] and Freezer().kill(named).complete


def test_containments_come_back_from_the_store_as_they_were(world: World) -> None:
    held = Containment("t", 0, ACTOR, Holding.HELD, 1, 2, "b", 3, b"/sys/x", "note", ())
    world.store.containments.save(held)
    assert world.store.containments.of("t") == held and world.store.containments.held() == [held]
    assert world.store.containments.of("other") is None


class Answerer:
    """Who holds opens, as far as containment asks."""

    def __init__(self) -> None:
        self.verdicts: dict[int, Held] = {}
        self.refuse = False

    def set_verdict(self, actor: int, verdict: Held) -> None:
        if self.refuse:
            raise ShieldError("hold.verdicts")
        self.verdicts[actor] = verdict

    def status(self) -> HoldStatus:
        return SimpleNamespace(running=True)  # type: ignore[return-value]

    def pids(self) -> tuple[int, ...]:
        return ()


@pytest.fixture
def built(tmp_path: Path, zoo: Zoo) -> Iterator[tuple[Contain, Answerer, Zoo, list[str]]]:
    """As the composition makes it: the real table of actors, the real signal, the real store."""
    tree = tmp_path / "guarded"
    tree.mkdir()
    config = Config.personal([tree], state_dir=tmp_path / "state", socket=tmp_path / "s")
    answerer, said = Answerer(), list[str]()
    words = containment.Words(lambda *word: said.append(word[1]), lambda code, text: said.append(code), lambda *x: None)
    with Store(tmp_path / "state" / "shieldd.db", roots=[os.fsencode(tree)]) as store:
        trees = Trees([GuardedTree(0, os.fsencode(tree), -1)])
        made = containment.build(lambda: config, store, trees, Actors(), words, opens=answerer)
        yield made, answerer, zoo, said
        made.stop()


def test_as_it_is_composed_an_attack_is_held_and_let_go(built: tuple[Contain, Answerer, Zoo, list[str]]) -> None:
    contain, answerer, zoo, said = built
    top = zoo.start(TWO)
    actor, _ = Actors().of(top.pid)
    held = contain.contain(decision(actor), incident(actor=actor))
    assert held is not None and {x.pid for x in held.stopped} == set(session(top.pid))
    assert answerer.verdicts == {actor: Held.DENY} and not zoo.advances("child")
    contain.release("threat01", why="x")
    assert answerer.verdicts == {actor: Held.NONE}
    until(lambda: zoo.advances("child") and zoo.advances("top"))
    answerer.refuse = True
    assert contain.deny(actor) == 0 and said[-1] == "hold.verdicts"
