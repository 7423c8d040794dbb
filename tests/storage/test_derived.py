"""What follows from what was said: an answer that is let stand after a critique beats the criticised one, and what was written the model's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest
from msgspec.structs import replace

from storage.derived import OLDER_ANSWERS, Followed, Surpassed, followed, surpassed
from storage.exchange.exporting import Options, export
from storage.records import Correction, Critique, Demonstration, Judgement, Prompt, Ranking, Rating, Redo, SampleSet, Undo

from .conftest import BASE, SITTING, Desk, answer

ASKED = "Why is the sky blue?"


def show(desk: Desk, uid: str, prompt: str = ASKED, purpose: str = "judge", **fields: object) -> None:
    """Four answers to the same prompt again; a is the base's."""
    desk.journal.write(SampleSet(uid, SITTING.uid, Prompt.of(prompt), 4, purpose, f"{uid}a", f"{uid}b")).result()
    for slot in range(4):
        text = {"text": f"{uid} says {slot}"} | (fields if slot else {})
        desk.journal.write(answer(uid, slot, "acting" if slot else "base", **text)).result()


def pairs(desk: Desk) -> list[Surpassed]:
    with desk.record._snapshot() as connection:
        return surpassed(connection)


def first(uid: str, *best: str) -> Ranking:
    return Ranking(uid, {f"{uid}{each}": 1 if each in best else 2 for each in "abcd"})


def test_it_is_a_pair_once_the_new_answer_is_put_first_and_none_after_an_undo_of_either(desk: Desk) -> None:
    show(desk, "s1")
    critique = desk.say(Critique("s1", "s1c", "shorter"))
    show(desk, "s2")
    assert pairs(desk) == []
    ranking = desk.say(first("s2", "b"))
    stood = [Surpassed(ranking, "s1c", "critique")]
    assert pairs(desk) == stood
    for target in (ranking, critique):
        undone = desk.say(Undo(target))
        assert pairs(desk) == [] and undone
        desk.say(Redo(target))
        assert pairs(desk) == stood
    with desk.record._snapshot() as connection:
        assert followed(connection) == [Followed(critique, "s2b")]
    assert [[r.uid for r in taught.over] for taught in desk.record.lessons()] == [[], ["s1c"]]


@pytest.mark.parametrize(
    ("best", "judged", "stands"),
    [
        (("b",), None, True),
        (("b", "d"), None, True),
        (("a",), None, False),  # the base's answer: nothing was followed
        (("a", "b"), None, False),
        ((), Rating("s2", "s2b", 5), True),
        ((), Rating("s2", "s2b", 4), False),
        ((), Rating("s2", "s2a", 7), False),
        ((), Rating("s2", "s2b", 7, "truthful"), False),
    ],
)
def test_what_lets_an_answer_stand(desk: Desk, best: tuple[str, ...], judged: Judgement | None, stands: bool) -> None:
    show(desk, "s1")
    desk.say(Critique("s1", "s1c", "shorter"))
    show(desk, "s2")
    seq = desk.say(judged or first("s2", *best))
    assert pairs(desk) == [Surpassed(seq, "s1c", "critique")] * stands


def test_it_counts_for_the_first_judged_set_of_that_prompt_after_the_critique_and_for_no_other(desk: Desk) -> None:
    show(desk, "s0")
    show(desk, "s1")
    show(desk, "s2")  # was there before the critique
    desk.say(Critique("s1", "s1c", "shorter"))
    show(desk, "s3", "Another prompt")
    show(desk, "s4", purpose="repeat")
    show(desk, "s5")  # never judged
    show(desk, "s6")
    show(desk, "s7")
    seqs = [desk.say(first(f"s{i}", "b")) for i in (0, 2, 3, 4, 6, 7)]
    assert pairs(desk) == [Surpassed(seqs[4], "s1c", "critique")]


def test_a_critique_of_all_answers_is_beaten_by_all_that_the_policy_drew_and_an_opposite_or_a_changed_dial_says_nothing(desk: Desk) -> None:
    show(desk, "s1")
    desk.say(Critique("s1", "s1b", "longer", strength=-1))
    desk.say(Critique("s1", None, "shorter"))
    show(desk, "s2")
    seq = desk.say(first("s2", "c"))
    expected = [Surpassed(seq, f"s1{each}", "critique") for each in "bcd"]
    assert pairs(desk) == expected
    desk.say(Critique("s1", None, "shorter", strength=3))
    show(desk, "s3")
    desk.say(first("s3", "c"))
    assert pairs(desk) == expected


@pytest.mark.parametrize("uid", [None, "s1c"])  # earlier versions wrote it at an answer
def test_a_standing_wish_is_against_no_answer_and_only_leads_to_what_stood_after_it(desk: Desk, uid: str | None) -> None:
    show(desk, "s1")
    wish = desk.say(Critique("s1", uid, "shorter", "all"))
    show(desk, "s2")
    ranking = desk.say(first("s2", "b"))
    assert pairs(desk) == [] and desk.record.lesson(ranking).over == ()
    assert hindsight(desk) == [Followed(wish, "s2b")]
    assert desk.record.surpassed_after("s1") == {ranking: frozenset()}
    desk.say(Critique("s1", "s1c", "shorter"))  # the same, said of an answer
    show(desk, "s3")
    seq = desk.say(first("s3", "b"))
    assert pairs(desk) == [Surpassed(seq, "s1c", "critique")]


def hindsight(desk: Desk) -> list[Followed]:
    with desk.record._snapshot() as connection:
        return followed(connection)


@pytest.mark.parametrize(("scope", "uid"), [("prompt", "s1c"), ("prompt", None), ("all", None), ("all", "s1c")])
@pytest.mark.parametrize(
    ("strengths", "undone", "acts"),
    [
        ((1,), False, True),
        ((1, 3), False, True),
        ((1, 0), False, False),
        ((1, -3), False, False),
        ((1, 0, 2), False, True),
        ((-2, 2), False, True),
        ((1, -3), True, True),  # taken back before the answers were drawn
        ((-3, 1), True, False),
    ],
)
def test_it_counts_only_what_acted_with_a_positive_strength_when_the_later_answers_were_drawn(
    desk: Desk, scope: Literal["prompt", "all"], uid: str | None, strengths: tuple[int, ...], undone: bool, acts: bool
) -> None:
    show(desk, "s1")
    said = [desk.say(Critique("s1", uid, "shorter", scope, strength)) for strength in strengths]
    if undone:
        desk.say(Undo(said[-1]))
    show(desk, "s2")
    desk.say(first("s2", "b"))
    stood = [Followed(said[0], "s2b")] * acts
    assert hindsight(desk) == stood
    assert acts or pairs(desk) == []
    desk.say(Undo(said[-1]) if undone is False and len(said) > 1 else Critique("s1", uid, "shorter", scope, -1))
    assert hindsight(desk) == stood, "what is said later changes nothing of what was drawn"
    assert [[r.uid for r in taught.over] for taught in desk.record.lessons() if isinstance(taught.logged.judgement, Ranking)] == [
        [pair.response_uid for pair in pairs(desk)]
    ]


def test_a_wish_is_dialled_by_the_same_words_at_whatever_set_they_are_said(desk: Desk) -> None:
    show(desk, "s1")
    show(desk, "elsewhere", "Another prompt")
    wish = desk.say(Critique("s1", "s1c", "shorter", "all"))
    desk.say(Critique("elsewhere", None, " shorter\n", "all", -3))
    show(desk, "s2")
    desk.say(first("s2", "b"))
    assert hindsight(desk) == [] and pairs(desk) == []
    desk.say(Critique("s1", "s1d", "warmer"))  # turned around by a wish in the same words
    desk.say(Critique("elsewhere", None, "warmer", "all", -1))
    show(desk, "s3")
    desk.say(first("s3", "b"))
    assert hindsight(desk) == [] and pairs(desk) == [] and wish


def test_what_was_not_there_when_the_later_answers_were_drawn_made_them_no_answer_to_it(desk: Desk) -> None:
    show(desk, "s1")
    critique = desk.say(Critique("s1", "s1c", "shorter"))
    desk.say(Undo(critique))
    show(desk, "s2")
    desk.say(first("s2", "b"))
    desk.say(Redo(critique))
    assert hindsight(desk) == [] and pairs(desk) == []


def test_what_was_written_beats_the_answers_beside_it_and_the_newest_of_each_older_version_and_nothing_later(desk: Desk) -> None:
    versions = ["base", "v1", "v1", "v2", "v3", "v4"]
    for i, version in enumerate(versions):
        show(desk, f"s{i}", version=version)
    show(desk, "elsewhere", "Another prompt")
    show(desk, "s9", version="v5")
    corrected = desk.say(Correction("s9", "s9b", "It scatters."))
    written = desk.say(Demonstration("s9", "It scatters light."))
    before = pairs(desk)
    show(desk, "later", version="v6")
    assert pairs(desk) == before
    older = ["s5a", "s5b", "s4b", "s3b"]  # of the base, v4, v3 and v2
    found = {seq: [pair.response_uid for pair in before if pair.seq == seq] for seq in (corrected, written)}
    assert len(older) == OLDER_ANSWERS
    assert found == {corrected: ["s9a", "s9c", "s9d", *older], written: ["s9a", "s9b", "s9c", "s9d", *older]}
    assert {pair.why for pair in before} == {"demonstration"}


def test_exports_tell_derived_pairs_apart_and_put_critiques_in_the_context_of_what_followed_them(desk: Desk, tmp_path: Path) -> None:
    show(desk, "s1")
    desk.say(Critique("s1", "s1c", "shorter"))
    show(desk, "s2")
    desk.say(first("s2", "b"))
    desk.say(Demonstration("s2", "It scatters light."))
    out = {name: tmp_path / f"{name}.jsonl" for name in ("trl-derived", "hindsight", "trl-preference")}
    for name, path in out.items():
        export(desk.path, path, Options(name))
    rows = {name: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] for name, path in out.items()}
    asked = [{"role": "user", "content": ASKED}]
    assert [(row["prompt"], row["chosen"][0]["content"], row["rejected"][0]["content"], row["derived"]) for row in rows["trl-derived"]] == [
        (asked, "s2 says 1", "s1 says 2", "critique"),
        *((asked, "It scatters light.", f"s2 says {slot}", "demonstration") for slot in range(4)),
        (asked, "It scatters light.", "s1 says 0", "demonstration"),
    ]
    assert rows["hindsight"] == [
        {"prompt": [{"role": "user", "content": f"{ASKED}\n\nshorter"}], "completion": [{"role": "assistant", "content": "s2 says 1"}]}
    ]
    assert all(row["chosen"][0]["content"] == "s2 says 1" for row in rows["trl-preference"])


@pytest.mark.parametrize("template", ["t" * 64, None])
def test_hindsight_has_the_critique_where_the_base_reads_it(desk: Desk, tmp_path: Path, template: str | None) -> None:
    """A base without a chat template reads it as a line before the text."""
    hashes = {"weights_sha256": "w" * 64, "tokenizer_sha256": "k" * 64, "template_sha256": template}
    desk.journal.bind(replace(BASE, **hashes), replace(SITTING, uid="later"))  # the first sitting was of a version that told no hashes
    show(desk, "s1")
    desk.say(Critique("s1", "s1c", "shorter"))
    show(desk, "s2")
    desk.say(first("s2", "b"))
    export(desk.path, tmp_path / "rows.jsonl", Options("hindsight"))
    (row,) = [json.loads(line)["prompt"] for line in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [each["content"] for each in row] == ([f"{ASKED}\n\nshorter"] if template else ["shorter", ASKED])
    assert {each["role"] for each in row} == {"user"}
