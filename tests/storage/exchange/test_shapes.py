"""A row of every shape that people have: what it is taken for, what was judged by it, and that it comes out again as it came in.

The rows are made up; their columns are those of the collections and tools that they are named after.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from storage.exchange.exporting import Options, export
from storage.exchange.importing import import_file
from storage.exchange.shapes import SHAPES
from storage.exchange.sources import Source
from storage.exchange.survey import Reading, Survey
from storage.journal import Journal
from storage.queries import Record
from storage.records import Comment, Correction, Critique, Demonstration, Logged, Ranking, Rating, Span
from storage.verification import problems

Q, GOOD, BAD = "Why is the sky blue?", "Because air scatters blue light most.", "It is painted."


def u(text: str = Q) -> dict[str, Any]:
    return {"role": "user", "content": text}


def a(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sky"}'}}],
}
TOOL = {"role": "tool", "tool_call_id": "c1", "content": "blue"}


class Case(NamedTuple):
    """`judged`: prompt turns, answers by slot, and what was said: 'r' ranks, 's' strength, criteria of ratings by slot, 'd' demonstration, …"""

    shape: str
    rows: Any
    prompt: list[str]
    answers: list[str]
    said: dict[str, Any]
    columns: dict[str, Any] = {}  # kept beside it; {} where there are none
    margin: float | None = None  # as it is exported, where the file had one
    learned: bool = True


PAIR = {"r": [1, 2]}
CASES = [
    # comparisons
    Case("preference", {"prompt": Q, "chosen": GOOD, "rejected": BAD, "source": "x"}, [Q], [GOOD, BAD], PAIR, {"source": "x"}),
    Case("preference", {"prompt": [u()], "chosen": [a(GOOD)], "rejected": [a(BAD)], "margin": 2.5}, [Q], [GOOD, BAD], PAIR, margin=2.5),
    Case("preference", {"prompt": Q, "prompt_id": "7f", "chosen": [u(), a(GOOD)], "rejected": [u(), a(BAD)], "messages": [u(), a(GOOD)],
                        "score_chosen": 8.5, "score_rejected": 4.0}, [Q], [GOOD, BAD], PAIR, {"prompt_id": "7f"}, 4.5),
    Case("preference", {"id": "t1", "source": "tulu", "prompt": Q, "chosen": [u("Hi"), a("Hello."), u(), a(GOOD)],
                        "rejected": [u("Hi"), a("Hello."), u(), a(BAD)], "chosen_rating": 5, "rejected_rating": 2, "chosen_model": "m"},
         ["Hi", "Hello.", Q], [GOOD, BAD], PAIR, {"id": "t1", "source": "tulu", "chosen_model": "m"}, 3.0),
    Case("preference", {"system": "Be brief.", "question": Q, "chosen": GOOD, "rejected": BAD}, ["Be brief.", Q], [GOOD, BAD], PAIR),
    Case("preference", {"system": "Be brief.", "input": Q, "chosen": GOOD, "rejected": BAD, "generations": [GOOD, BAD], "order": ["a", "b"],
        "rating": [9.0, 3.0]},
         ["Be brief.", Q], [GOOD, BAD], PAIR, {"generations": [GOOD, BAD], "order": ["a", "b"], "rating": [9.0, 3.0]}),
    Case("preference", {"instruction": "Say why", "input": "the sky is blue", "chosen": GOOD, "rejected": BAD, "history": [["Hi", "Hello."]],
        "system": "Sys"},
         ["Sys", "Hi", "Hello.", "Say why\nthe sky is blue"], [GOOD, BAD], PAIR),
    Case("preference", {"chosen": f"{Q} {GOOD}", "rejected": f"{Q} {BAD}"}, [Q], [GOOD, BAD], PAIR),
    Case("preference", {"prompt": f"{Q}\n", "chosen": f"{Q}\n{GOOD}", "rejected": f"{Q}\n{BAD}"}, [f"{Q}\n"], [GOOD, BAD], PAIR),
    Case("preference", {"conversations": [{"from": "human", "value": Q}], "chosen": {"from": "gpt", "value": GOOD}, "rejected": {"from": "gpt",
        "value": BAD}},
         [Q], [GOOD, BAD], PAIR),
    Case("preference", {"input": {"messages": [u()], "tools": []}, "preferred_output": [a(GOOD)], "non_preferred_output": [a(BAD)]}, [Q],
        [GOOD, BAD], PAIR),
    Case("preference", {"prompt": f"\n\nHuman: {Q}\n\nAssistant:", "chosen": f" {GOOD}", "rejected": f" {BAD}"}, [Q], [f" {GOOD}", f" {BAD}"], PAIR),
    Case("preference", {"prompt": [u()], "chosen": [CALL, TOOL, a(GOOD)], "rejected": [a(BAD)], "tools": [{"type": "function"}]},
         [Q], [f'[look({{"at": "sky"}})]\n\nuser: blue\n\nassistant: {GOOD}', BAD], PAIR, {"tools": [{"type": "function"}]}, learned=False),
    Case("preference", {"prompt": [{"role": "user", "content": [{"type": "text", "text": Q}, {"type": "image_url", "image_url": {"url": "x"}}]}],
                        "chosen": [a(GOOD)], "rejected": [a(BAD)]}, [f"{Q}\n[image_url]"], [GOOD, BAD], PAIR, learned=False),
    Case("preference", {"prompt": [{"role": "user", "name": "jo", "content": [{"type": "text", "text": Q}]}],
                        "chosen": [{**a(GOOD), "reasoning_content": "Rayleigh."}], "rejected": [a(BAD)]}, [Q], [GOOD, BAD], PAIR),
    Case("preference", {"prompt": Q, "chosen": [GOOD], "rejected": [BAD, "No."], "subset": "facts"}, [Q], [GOOD, BAD, "No."], {"r": [1, 2, 2]},
         {"subset": "facts"}),
    Case("preference", {"prompt": Q, "chosen": [GOOD], "rejected": [BAD]}, [Q], [GOOD, BAD], PAIR),
    Case("hh", {"chosen": f"\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: {Q}\n\nAssistant: {GOOD}",
                "rejected": f"\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: {Q}\n\nAssistant: {BAD}"}, ["Hi", "Yes?", Q], [GOOD, BAD], PAIR),
    Case("helpsteer3", {"domain": "general", "language": "english", "context": [u()], "response1": BAD, "response2": GOOD, "overall_preference": 2,
                        "individual_preference": [{"score": 2, "reasoning": "right"}]}, [Q], [BAD, GOOD], {"r": [2, 1], "s": 2},
         {"domain": "general", "language": "english", "individual_preference": [{"score": 2, "reasoning": "right"}]}),
    Case("helpsteer2-preference", {"split": "train", "prompt": Q, "response_1": GOOD, "response_2": BAD, "preference_strength": -3,
        "preference_statement": "1"},
         [Q], [GOOD, BAD], {"r": [1, 2], "s": 3}, {"split": "train", "preference_statement": "1"}),
    Case("pku-saferlhf", {"prompt": Q, "response_0": BAD, "response_1": GOOD, "is_response_0_safe": False, "is_response_1_safe": True,
        "better_response_id": 1,
                          "safer_response_id": 1, "response_0_harm_category": {"Insult": True}}, [Q], [BAD, GOOD], {"r": [2, 1], "harmless": [2, 7]},
         {"safer_response_id": 1, "response_0_harm_category": {"Insult": True}}),
    Case("webgpt", {"question": {"dataset": "eli5", "id": "q1", "full_text": Q}, "answer_0": BAD, "answer_1": GOOD, "score_0": -0.5, "score_1": 0.5,
                    "quotes_0": {"title": [], "extract": []}, "tokens_0": {"prefix": [1]}}, [Q], [BAD, GOOD], {"r": [2, 1]},
         {"question": {"dataset": "eli5", "id": "q1"}, "quotes_0": {"title": [], "extract": []}, "tokens_0": {"prefix": [1]}}, 1.0),
    Case("shp", {"post_id": "p", "domain": "askscience", "history": Q, "human_ref_A": GOOD, "human_ref_B": BAD, "labels": 1, "score_A": 90,
        "score_B": 7},
         [Q], [GOOD, BAD], PAIR, {"post_id": "p", "domain": "askscience"}, 83.0),
    Case("alpaca-eval", {"instruction": Q, "output_1": BAD, "output_2": GOOD, "generator_1": "m1", "preference": 2.0}, [Q],
        [BAD, GOOD], {"r": [2, 1]},
         {"generator_1": "m1"}),
    Case("two-answers", {"question": Q, "answer_a": GOOD, "answer_b": BAD, "winner": "A"}, [Q], [GOOD, BAD], PAIR),
    Case("summaries", {"info": {"id": "i", "post": Q, "subreddit": "s"}, "summaries": [{"text": BAD, "policy": "p"}, {"text": GOOD, "policy": "q"}],
                       "choice": 1, "worker": "w"}, [Q], [BAD, GOOD], {"r": [2, 1]},
         {"worker": "w", "info": {"id": "i", "subreddit": "s"}, "summaries": [{"policy": "p"}, {"policy": "q"}]}),
    # votes
    Case("arena", {"question_id": "q", "model_a": "x", "model_b": "y", "winner": "model_b", "conversation_a": [u(), a(BAD)],
        "conversation_b": [u(), a(GOOD)],
                   "turn": 1}, [Q], [BAD, GOOD], {"r": [2, 1]}, {"question_id": "q", "model_a": "x", "model_b": "y", "turn": 1}),
    Case("arena", {"winner": "tie", "conversation_a": [u(), a(BAD)], "conversation_b": [u(), a(GOOD)]}, [Q], [BAD, GOOD], {"r": [1, 1]}),
    Case("arena", {"winner": "tie (bothbad)", "conversation_a": [u(), a(BAD)], "conversation_b": [u(), a("No.")]}, [Q], [BAD, "No."],
         {"r": [1, 1], "overall": [2, 2]}),
    Case("arena", {"winner": "model_a", "conversation_a": [u(), a(GOOD), u("More?"), a("Yes.")],
        "conversation_b": [u(), a(BAD), u("More?"), a("No.")]},
         [Q], [f"{GOOD}\n\nuser: More?\n\nassistant: Yes.", f"{BAD}\n\nuser: More?\n\nassistant: No."], PAIR, learned=False),
    Case("arena-table", {"id": 1, "model_a": "x", "prompt": [Q], "response_a": [GOOD], "response_b": [BAD], "winner_model_a": 1,
        "winner_model_b": 0, "winner_tie": 0},
         [Q], [GOOD, BAD], PAIR, {"id": 1, "model_a": "x"}),
    Case("arena-table", {"prompt": json.dumps([Q]), "response_a": json.dumps([GOOD]), "response_b": json.dumps([BAD]), "winner_model_a": 1,
        "winner_model_b": 0, "winner_tie": 0}, [Q], [GOOD, BAD], PAIR),
    Case("arena-table", {"prompt": "[sic] Why?", "response_a": "[]", "response_b": "[1, 2]", "winner_model_a": 1, "winner_model_b": 0,
                         "winner_tie": 0}, ["[sic] Why?"], ["[]", "[1, 2]"], PAIR),
    # several answers
    Case("nectar", {"prompt": f"\n\nHuman: {Q}\n\nAssistant: ", "answers": [{"answer": BAD, "model": "m", "rank": 2.0}, {"answer": GOOD,
        "model": "n", "rank": 1.0}],
                    "num_responses": 2}, [Q], [BAD, GOOD], {"r": [2, 1]}, {"num_responses": 2, "answers": [{"model": "m"}, {"model": "n"}]}),
    Case("ultrafeedback", {"source": "evol", "instruction": Q, "models": ["m", "n"], "completions": [
        {"model": "m", "response": BAD, "overall_score": 85.0, "annotations": {"helpfulness": {"Rating": "2"}, "truthfulness": {"Rating": "1"}}},
        {"model": "n", "response": GOOD, "overall_score": 8.5, "annotations": {"helpfulness": {"Rating": "5"}, "truthfulness": {"Rating": "4"}}}]},
        [Q], [BAD, GOOD], {"r": [2, 1], "useful": [3, 7], "truthful": [1, 6]}, {"source": "evol", "models": ["m", "n"]}, 3.0),
    Case("scored-list", {"prompt": Q, "responses": [GOOD, BAD, "No."], "scores": [0.9, 0.1, 0.1]}, [Q], [GOOD, BAD, "No."], {"r": [1, 2, 2]}),
    Case("scored-list", {"instruction": Q, "completions": [{"text": BAD, "score": 1}, {"text": GOOD, "score": 3}]}, [Q],
        [BAD, GOOD], {"r": [2, 1]}, margin=2.0),
    # single answers
    Case("helpsteer", {"prompt": Q, "response": GOOD, "helpfulness": 3, "correctness": 4, "coherence": 4, "complexity": 1, "verbosity": 0}, [Q],
        [GOOD],
         {"overall": [6], "useful": [6], "truthful": [7]}, {"helpfulness": 3, "correctness": 4, "coherence": 4, "complexity": 1, "verbosity": 0}),
    Case("helpsteer", {"prompt": Q, "response": GOOD, "helpfulness": [2, 4], "correctness": [4], "coherence": 4, "complexity": 1, "verbosity": 0},
        [Q], [GOOD], {"overall": [6], "useful": [6], "truthful": [7]},
        {"helpfulness": [2, 4], "correctness": [4], "coherence": 4, "complexity": 1, "verbosity": 0}),
    Case("helpsteer3-edit", {"domain": "general", "context": [u()], "original_response": BAD, "edited_response": GOOD,
                             "feedback": ["It is not true."]}, [Q], [BAD],
        {"corrections": [(0, GOOD)], "comments": [(0, "It is not true.")]}, {"domain": "general"}),
    Case("helpsteer3-feedback", {"domain": "general", "context": [u()], "response": BAD, "feedback": ["It is not true.", "It is short."]},
        [Q], [BAD], {"comments": [(0, "It is not true."), (0, "It is short.")]}, {"domain": "general"}),
    Case("beavertails", {"prompt": Q, "response": BAD, "category": {"x": False}, "is_safe": False}, [Q], [BAD], {"harmless": [2]},
        {"category": {"x": False}}),
    Case("labelled", {"prompt": [u()], "completion": [a(GOOD)], "label": True}, [Q], [GOOD], {"overall": [6]}),
    Case("labelled", {"prompt": Q, "completion": BAD, "label": 0}, [Q], [BAD], {"overall": [2]}),
    Case("labelled", {"prompt": Q, "response": BAD, "thumbs": "down"}, [Q], [BAD], {"overall": [2]}),
    Case("labelled", {"conversations": [{"from": "human", "value": Q}, {"from": "gpt", "value": GOOD}], "kto_tag": "true"}, [Q],
        [GOOD], {"overall": [6]}),
    Case("rated", [{"prompt": Q, "response": GOOD, "rating": 5}, {"prompt": Q, "response": BAD, "rating": 1}], [Q], [GOOD], {"overall": [7]}),
    Case("critiques", {"prompt": Q, "response": BAD, "critique": "be true", "scope": "all", "strength": 2}, [Q],
        [BAD], {"critiques": [(0, "be true", "all", 2)]}),
    Case("critiques", {"prompt": Q, "response": BAD, "critique": "be true"}, [Q],
        [BAD], {"critiques": [(0, "be true", "prompt", 1)]}),
    Case("critiques", {"messages": [u(), a(BAD)], "critique": "be true", "strength": "-2", "scope": None, "id": 3}, [Q],
        [BAD], {"critiques": [(0, "be true", "prompt", -2)]}, {"id": 3}),
    Case("critiques", {"instruction": Q, "output": BAD, "critique": "be true", "scope": "all"}, [Q],
        [BAD], {"critiques": [(0, "be true", "all", 1)]}),
    Case("rated", {"prompt": Q, "response": BAD, "critique": "be true", "rating": 2}, [Q],
        [BAD], {"overall": [4]}, {"critique": "be true"}),
    Case("critiques", {"prompt": Q, "critique": "be true", "scope": "prompt"}, [Q],
        [], {"critiques": [(None, "be true", "prompt", 1)]}),
    Case("steps", {"prompt": Q, "completions": ["One. ", "Two."], "labels": [True, False]}, [Q],
        ["One. Two."], {"steps": [(0, 5, 1.0), (5, 9, -1.0)]}),
    # demonstrations
    Case("demonstration", {"instruction": Q, "input": "", "output": GOOD, "system": "Sys"}, ["Sys", Q], [], {"d": GOOD}),
    Case("demonstration", {"instruction": Q, "context": "About air.", "response": GOOD, "category": "qa"}, [f"{Q}\nAbout air."],
        [], {"d": GOOD}, {"category": "qa"}),
    Case("demonstration", {"source": "s", "conversation": [{"input": "Hi", "output": "Yes?"}, {"input": Q, "output": GOOD}]}, ["Hi", "Yes?", Q], [],
         {"d": GOOD}, {"source": "s"}),
    Case("demonstration", {"conversations": [{"from": "system", "value": "Sys"}, {"from": "human", "value": Q}, {"from": "gpt", "value": GOOD}]},
         ["Sys", Q], [], {"d": GOOD}),
    Case("demonstration", {"prompt": Q, "prompt_id": "1", "messages": [u(), a(GOOD)]}, [Q], [], {"d": GOOD}, {"prompt_id": "1"}),
    Case("demonstration", {"messages": [u(), CALL, TOOL, a(GOOD)], "tools": [{"type": "function"}]}, [Q, '[look({"at": "sky"})]', "blue"], [],
         {"d": GOOD}, {"tools": [{"type": "function"}]}, learned=False),
    Case("demonstration", {"conversations": [{"from": "human", "value": Q}, 
        {"from": "function_call", "value": '{"name": "look", "arguments": {"at": "sky"}}'}, {"from": "observation", "value": "blue"},
        {"from": "gpt", "value": GOOD}]},
         [Q, '[look({"at":"sky"})]', "blue"], [], {"d": GOOD}, learned=False),
    Case("demonstration", {"input": Q, "output": GOOD}, [Q], [], {"d": GOOD}),
    # trees and tools
    Case("oasst", {"message_tree_id": "t", "prompt": {"role": "prompter", "text": Q, "replies": [
        {"role": "assistant", "text": BAD, "rank": 1, "lang": "en"}, {"role": "assistant", "text": GOOD, "rank": 0, "lang": "en"}]}},
        [Q], [BAD, GOOD], {"r": [2, 1]}, {"message_tree_id": "t", "replies": [{"lang": "en"}, {"lang": "en"}]}),
    Case("oasst-flat", [
        {"message_id": "m1", "parent_id": None, "message_tree_id": "t", "role": "prompter", "text": Q, "rank": None},
        {"message_id": "m2", "parent_id": "m1", "message_tree_id": "t", "role": "assistant", "text": BAD, "rank": 1.0},
        {"message_id": "m3", "parent_id": "m1", "message_tree_id": "t", "role": "assistant", "text": GOOD, "rank": 0.0}],
        [Q], [BAD, GOOD], {"r": [2, 1]}, {"message_tree_id": "t"}),
    Case("open-webui", {"id": "f", "user_id": "jo", "version": 0, "type": "rating", "created_at": 1,
                        "data": {"rating": -1, "model_id": "m", "sibling_model_ids": ["n"], "reason": "wrong", "comment": "paint?",
                        "details": {"rating": 2}},
                        "meta": {"message_id": "m2", "chat_id": "c"},
                        "snapshot": {"chat": {"chat": {"history": {"currentId": "m2", "messages": {
                            "m1": {"id": "m1", "parentId": None, "childrenIds": ["m2", "m3"], "role": "user", "content": Q},
                            "m2": {"id": "m2", "parentId": "m1", "childrenIds": [], "role": "assistant", "content": BAD},
                            "m3": {"id": "m3", "parentId": "m1", "childrenIds": [], "role": "assistant", "content": GOOD}}}}}}},
         [Q], [BAD, GOOD], {"r": [2, 1], "overall": [2, None], "comments": [(0, "wrong"), (0, "paint?")], "by": "jo"}),
    Case("argilla", {"fields": {"prompt": Q, "r1": GOOD, "r2": BAD}, "responses": [
        {"question_name": "q", "value": [{"value": "r1", "rank": 1}, {"value": "r2", "rank": 2}], "status": "submitted"}]}, [Q], [GOOD, BAD], PAIR),
    Case("argilla", {"fields": {"prompt": Q, "response": BAD}, "responses": [{"values": {
        "correctness": {"value": 1}, "corrected": {"value": GOOD}, "why": {"value": "Paint does not reach."}}, "status": "submitted",
            "user_id": "kim"}]},
        [Q], [BAD], {"truthful": [4], "corrections": [(0, GOOD)], "comments": [(0, "Paint does not reach.")], "by": "kim"}),
    Case("argilla-table", {"id": "r", "status": "completed", "prompt": Q, "response1": GOOD, "response2": BAD, "best.responses": ["response1"],
                           "best.responses.users": ["kim"], "best.responses.status": ["submitted"], "best.suggestion": "response2"},
         [Q], [GOOD, BAD], {"r": [1, 2], "by": "kim"}, {"id": "r", "status": "completed", "best.suggestion": "response2"}),
    Case("argilla-table", {"prompt": Q, "a": GOOD, "b": BAD, "order": [{"user_id": "kim", "value": {"rank": [1, 2], "value": ["a", "b"]},
        "status": "submitted"}],
                           "order-suggestion": None, "external_id": "e"}, [Q], [GOOD, BAD], {"r": [1, 2], "by": "kim"}, {"external_id": "e"}),
    Case("label-studio", {"id": 1, "data": {"prompt": Q, "answer1": BAD, "answer2": GOOD}, "predictions": [], "annotations": [
        {"completed_by": {"id": 3, "email": "jo@x.example"}, "was_cancelled": False, "result": [
            {"from_name": "pw", "to_name": "answer1,answer2", "type": "pairwise", "value": {"selected": "right"}}]}]},
        [Q], [BAD, GOOD], {"r": [2, 1], "by": "jo@x.example"}, {"id": 1}),
    Case("label-studio", {"id": 2, "data": {"prompt": Q, "items": [{"id": "x", "body": BAD}, {"id": "y", "body": GOOD}]}, "annotations": [
        {"completed_by": 3, "result": [{"from_name": "rank", "to_name": "items", "type": "ranker", "value": {"ranker": {"rank": ["y", "x"]}}}]}]},
        [Q], [GOOD, BAD], {"r": [1, 2], "by": "3"}, {"id": 2}),
    Case("prodigy", {"text": Q, "options": [{"id": 1, "text": GOOD}, {"id": 2, "text": BAD}], "accept": [1], "answer": "accept",
        "_annotator_id": "jo"},
         [Q], [GOOD, BAD], {"r": [1, 2], "by": "jo"}, {"_annotator_id": "jo"}),
    Case("prodigy", {"prompt": Q, "response": BAD, "answer": "reject"}, [Q], [BAD], {"overall": [2]}),
]  # fmt: skip


def written(folder: Path, rows: Any, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in (rows if isinstance(rows, list) else [rows])), encoding="utf-8")
    return path


def said_of(live: list[Logged], answers: list[str]) -> dict[str, Any]:
    """What was said of the first set, in the words of a case; answers by their uids."""
    found: dict[str, Any] = {}
    for each in (logged.judgement for logged in live):
        match each:
            case Ranking(ranks=ranks, strength=strength):
                found["r"] = [ranks.get(uid) for uid in answers]
                found |= {"s": strength} if strength is not None else {}
            case Rating(response_uid=uid, value=value, criterion=criterion):
                found.setdefault(criterion, [None] * len(answers))[answers.index(uid)] = value
            case Demonstration(text=text):
                found["d"] = text
            case Correction(response_uid=uid, text=text):
                found.setdefault("corrections", []).append((answers.index(uid), text))
            case Comment(response_uid=uid, text=text):
                found.setdefault("comments", []).append((answers.index(uid) if uid else None, text))
            case Critique(response_uid=uid, text=text, scope=scope, strength=strength):
                found.setdefault("critiques", []).append((answers.index(uid) if uid else None, text, scope, strength))
            case Span(start=start, stop=stop, value=value):
                found.setdefault("steps", []).append((start, stop, value))
    return found


def test_there_is_a_case_for_every_shape() -> None:
    assert {case.shape for case in CASES} == {shape.name for shape in SHAPES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.shape)
def test_a_row_is_taken_for_what_it_is_and_comes_out_again(case: Case, empty_database: Path, tmp_path: Path) -> None:
    file = written(tmp_path, case.rows)
    survey = Survey(Reading(Source(file)))
    assert (survey.shapes.keys(), survey.bad) == ({case.shape}, 0)
    assert survey.not_learned == (0 if case.learned else survey.items)
    first = Path(shutil.copy(empty_database, tmp_path / "first.db"))
    with Journal.open(first) as journal:
        assert import_file(journal, file).added
        assert import_file(journal, file).added == 0
    assert list(problems(first)) == []
    with Record(first) as record:
        one = next(iter(record.live())).judgement.set_uid  # type: ignore[union-attr]
        prompt, answers = record.sample_set(one).prompt, record.responses(one)
        assert [message.content for message in prompt.messages] == case.prompt and prompt.source == case.shape
        assert [answer.text for answer in answers] == case.answers
        said = said_of(record.live(one), [answer.uid for answer in answers])
        assert operators(first) == {f"import {case.shape}" + (f"/{case.said['by']}" if "by" in case.said else "")}
        assert said == {key: value for key, value in case.said.items() if key != "by"}
        assert bool(record.lessons()) == (case.learned and bool(said.keys() - {"steps", "comments"}))
        kept = record.kept(one)
        if case.shape == "ultrafeedback":
            assert kept["columns"].pop("completions")[0]["model"] == "m"
        if case.shape != "open-webui":
            assert (kept["columns"] if kept else {}) == case.columns
    if case.margin is not None:
        export(first, tmp_path / "pairs.jsonl", Options("trl-preference"))
        assert json.loads((tmp_path / "pairs.jsonl").read_text().splitlines()[0])["margin"] == case.margin
    for format in ("trl-preference", "trl-kto", "trl-sft", "openai-dpo", "openai-sft"):
        assert_the_same_again(first, format, empty_database, tmp_path)


def operators(database: Path) -> set[str]:
    with closing(sqlite3.connect(database)) as connection:
        return {name for (name,) in connection.execute("SELECT operator FROM sittings")}


def assert_the_same_again(database: Path, format: str, empty_database: Path, folder: Path) -> None:
    """An export, imported elsewhere and exported there, is the same export."""
    out, again = folder / f"{format}.jsonl", folder / f"{format}-again.jsonl"
    export(database, out, Options(format, columns=True))
    if not out.read_text():
        return
    other = Path(shutil.copy(empty_database, folder / f"{format}.db"))
    with Journal.open(other) as journal:
        import_file(journal, out)
    export(other, again, Options(format, columns=True))
    assert [json.loads(line) for line in again.read_text().splitlines()] == [json.loads(line) for line in out.read_text().splitlines()]
