"""The bookkeeping of leases: whatever happens, every request has one place and ends once."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from batchchat.chats import Request, Settings
from batchchat.launch.leases import Leases
from batchchat.launch.patience import Backoff, Patience

ROWS = 3


def request(index: int, turn: int = 0, new_tokens: int = 8) -> Request:
    return Request(f"c{index}", index, 0, turn, (1, 2), Settings(max_new_tokens=new_tokens), 0)


class Ledger(RuleBasedStateMachine):
    """Replicas come, begin, answer, give back, and end at any time, by chance or by their work."""

    replicas = Bundle("replicas")

    @initialize()
    def begin(self) -> None:
        self.leases = Leases()
        self.ready: list[Request] = []
        self.at: dict[int, dict[tuple[int, int, int], Request]] = {}
        self.begun: dict[int, set[tuple[int, int, int]]] = {}
        self.ended: Counter[tuple[int, int, int]] = Counter()
        self.strikes: Counter[tuple[int, int, int]] = Counter()
        self.made = 0
        self.number = 0

    @rule(count=st.integers(1, 9), tokens=st.integers(1, 5))
    def more(self, count: int, tokens: int) -> None:
        for _ in range(count):
            self.ready.append(request(self.made, new_tokens=tokens))
            self.made += 1

    @rule(target=replicas)
    def join(self) -> int:
        self.number += 1
        self.leases.join(self.number, ROWS)
        self.at[self.number], self.begun[self.number] = {}, set()
        return self.number

    @rule()
    def assign(self) -> None:
        apart = self.leases.try_apart()
        given, rest = self.leases.assign(self.ready)
        self.ready = rest
        for replica, requests in apart.items():
            assert replica not in given
            assert not self.at[replica], "apart from others"
            self.at[replica] = {one.key: one for one in requests}
        for replica, requests in given.items():
            self.at[replica].update({one.key: one for one in requests})

    @rule(replica=replicas, count=st.integers(1, ROWS))
    def start(self, replica: int, count: int) -> None:
        if replica in self.at:
            keys = [key for key in self.at[replica] if key not in self.begun[replica]][:count]
            self.begun[replica].update(keys)
            self.leases.start(replica, keys)

    @rule(replica=replicas)
    def answer(self, replica: int) -> None:
        if self.begun.get(replica):
            key = self.begun[replica].pop()
            found = self.leases.settle(replica, key)
            assert found is not None
            assert found is self.at[replica].pop(key)
            self.ended[key] += 1
            assert self.leases.settle(replica, key) is None, "the same answer twice counts once"

    @rule()
    def recall(self) -> None:
        for replica, count in self.leases.recall().items():
            spare = [key for key in self.at[replica] if key not in self.begun[replica]][:count]
            returned = self.leases.give_back(replica, spare)
            assert {one.key for one in returned} == set(spare)
            for one in returned:
                del self.at[replica][one.key]
            self.ready += returned

    @rule(replica=replicas, outside=st.booleans())
    def end(self, replica: int, outside: bool) -> None:
        if replica not in self.at:
            return
        held, begun = self.at.pop(replica), self.begun.pop(replica)
        lost = self.leases.leave(replica, outside=outside)
        self.strikes.update(begun)
        assert {one.key for one in [*lost.again, *(one for one, _ in lost.failed)]} <= held.keys()
        assert all(one.key in {again.key for again in lost.again} for key, one in held.items() if key not in begun)
        for one, ends in lost.failed:
            assert ends == self.strikes[one.key] >= 3, "two replicas, and the one where it was alone"
            assert len(held) == 1
            self.ended[one.key] += 1
        self.ready += lost.again
        assert self.leases.settle(replica, next(iter(held), (0, 0, 0))) is None, "a replica that ended answers nothing"

    @invariant()
    def every_request_has_one_place(self) -> None:
        if not hasattr(self, "leases"):
            return
        assert all(times == 1 for times in self.ended.values())
        assert len(self.ready) + self.leases.outstanding + len(self.ended) == self.made
        for replica, held in self.at.items():
            assert self.leases.held(replica) == len(held) <= 2 * ROWS, "no more than its credit"

    def teardown(self) -> None:
        """With replicas that work, everything ends: nothing is stuck."""
        if not hasattr(self, "leases"):
            return
        for replica in list(self.at):
            lost = self.leases.leave(replica, outside=True)
            self.ready += lost.again
            self.ended.update(one.key for one, _ in lost.failed)
        self.number += 1
        self.leases.join(self.number, ROWS)
        for _ in range(10 * self.made + 10):
            apart = self.leases.try_apart().get(self.number, [])
            given, self.ready = self.leases.assign(self.ready)
            for one in [*apart, *given.get(self.number, ())]:
                self.leases.start(self.number, [one.key])
                assert self.leases.settle(self.number, one.key) is one
                self.ended[one.key] += 1
            if len(self.ended) == self.made:
                break
        assert len(self.ended) == self.made


TestLedger = Ledger.TestCase
TestLedger.settings = settings(max_examples=60, stateful_step_count=40)


def test_a_later_turn_goes_to_the_replica_that_holds_its_prefix() -> None:
    leases = Leases()
    leases.join(0, 2)
    leases.join(1, 2)
    given, _ = leases.assign([request(n) for n in range(4)])
    home = {one.index: replica for replica, requests in given.items() for one in requests}
    for one in [one for requests in given.values() for one in requests]:
        leases.start(home[one.index], [one.key])
        leases.settle(home[one.index], one.key)
    given, rest = leases.assign([request(n, turn=1) for n in range(4)])
    assert rest == []
    assert {one.index: replica for replica, requests in given.items() for one in requests} == home


def test_a_later_turn_waits_for_its_replica_unless_another_idles() -> None:
    leases = Leases()
    leases.join(0, 1)
    assert leases.assign([request(0)])[0].keys() == {0}
    leases.start(0, [(0, 0, 0)])
    leases.settle(0, (0, 0, 0))
    leases.assign([request(1), request(2)])
    assert leases.assign([request(0, turn=1)])[0] == {}, "its replica has no room, and there is no other"
    leases.join(1, 1)
    assert leases.assign([request(0, turn=1)])[0].keys() == {1}


def test_longest_expected_answers_go_first() -> None:
    leases = Leases()
    leases.join(0, 1)
    given, rest = leases.assign([request(0, new_tokens=1), request(1, new_tokens=9), request(2, new_tokens=5)])
    assert [one.index for one in given[0]] == [1, 2]
    assert [one.index for one in rest] == [0]


def test_what_was_not_begun_is_shared_with_a_replica_that_comes_later() -> None:
    leases = Leases()
    leases.join(0, 8)
    given, _ = leases.assign([request(n) for n in range(16)])
    leases.start(0, [one.key for one in given[0][:8]])
    leases.join(1, 8)
    assert leases.recall() == {0: 8}
    assert leases.recall() == {}, "asked once"
    returned = leases.give_back(0, [one.key for one in given[0][8:]])
    assert leases.assign(returned)[0].keys() == {1}
    assert leases.recall() == {}


def test_chance_alone_fails_no_request() -> None:
    """Kills from outside may meet a request that is tried alone; it takes three of them."""
    leases, one, ends = Leases(), request(0), 0
    ready = [one]
    for replica in range(10):
        leases.join(replica, 4)
        given = leases.try_apart() or leases.assign(ready)[0]
        assert given == {replica: [one]}
        leases.start(replica, [one.key])
        lost = leases.leave(replica, outside=True)
        ends, ready = ends + 1, list(lost.again)
        if lost.failed:
            break
    assert ends == 5


def groups_until_blamed(poison: int, outside: bool) -> list[int]:
    """Replicas of 32 rows end over one of 64 requests: with how many it was computed each time."""
    leases, ready, sizes = Leases(), [request(n) for n in range(64)], list[int]()
    for replica in range(20):
        leases.join(replica, 32)
        mine = leases.try_apart().get(replica, [])
        while True:
            given, ready = leases.assign(ready)
            mine += given.get(replica, ())
            begun, mine = mine[:32], mine[32:]
            leases.start(replica, [one.key for one in begun])
            if poison in {one.index for one in begun}:
                break
            for one in begun:
                assert leases.settle(replica, one.key) is one
            mine += leases.try_apart().get(replica, [])
        sizes.append(len(begun))
        lost = leases.leave(replica, outside=outside)
        ready += lost.again
        if lost.failed:
            assert [(one.index, ends) for one, ends in lost.failed] == [(poison, len(sizes))]
            break
    return sizes


def test_what_ends_replicas_is_found_among_many() -> None:
    assert groups_until_blamed(5, outside=False) == [32, 32, 1]
    assert groups_until_blamed(5, outside=True) == [32, 32, 8, 2, 1, 1, 1]


def test_many_that_met_chance_are_tried_in_groups() -> None:
    """Two ends from outside put all that two replicas compute under suspicion: they are answered in a few groups."""
    leases, ready = Leases(), [request(n) for n in range(32)]
    for replica in range(2):
        leases.join(replica, 32)
        given, _ = leases.assign(ready)
        leases.start(replica, [one.key for one in given[replica]])
        ready = list(leases.leave(replica, outside=True).again)
    assert (ready, leases.outstanding) == ([], 32)
    leases.join(2, 32)
    for _ in range(4):
        (group,) = leases.try_apart().values()
        assert len(group) == 8
        assert leases.try_apart() == {}, "one group at a time"
        assert leases.assign([request(99)])[0] == {}, "nothing else meanwhile"
        for one in group:
            leases.settle(2, one.key)
    assert leases.outstanding == 0
    assert leases.assign([request(99)])[0].keys() == {2}


def test_patience_follows_from_history() -> None:
    patience = Patience(factor=10, least=1, first=100)
    assert patience.limit == 100
    patience.heard_after(0.5)
    patience.answered = True
    assert patience.limit == 5
    patience.heard_after(30)
    assert patience.limit == 300


def test_backoff_gives_up_after_ends_in_a_row() -> None:
    backoff = Backoff(tries=4)
    assert [backoff.ended() for _ in range(4)] == [0.0, 1.0, 2.0, None]
    backoff.answered()
    assert backoff.ended() == 0.0


def test_what_others_end_is_started_again_and_again() -> None:
    backoff = Backoff(tries=4, most=3.0)
    assert [backoff.ended(blame=False) for _ in range(2000)][:6] == [0.0, 1.0, 2.0, 3.0, 3.0, 3.0]
    assert [backoff.ended() for _ in range(4)] == [3.0, 3.0, 3.0, None], "but not where it ends by itself"
