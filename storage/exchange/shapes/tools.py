"""What labelling tools export: Argilla, Label Studio, Prodigy. One judged set for each person and record."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from storage.exchange.items import Judged, Row
from storage.exchange.shapes.pieces import BadRow, Reply, Turn, empty, is_label, judged, label_of, messages_of, ranked, reply_of, rest, said, score_of
from storage.exchange.shapes.trainers import BAD, GOOD

ASKED = ("prompt", "instruction", "chat", "messages", "conversation", "question", "query", "input", "text", "context")
_REWRITTEN = re.compile(r"correct|rewrit|improve|edit|better|ideal|fix|revis", re.IGNORECASE)
_CRITERIA = (
    ("truthful", re.compile(r"truth|correct|fact|accura")),
    ("harmless", re.compile(r"harm|safe|toxic")),
    ("useful", re.compile(r"help|useful")),
)


class Said(NamedTuple):
    """One answer of one person to one question about the record."""

    question: str
    value: Any
    by: str


def read(fields: Row, answers: Sequence[Said], columns: Row) -> Iterator[Judged]:
    """What people said of a record: rankings of fields, choices between them, ratings, labels, rewritten answers, notes."""
    name = next((name for name in ASKED if not empty(fields.get(name))), None)
    if name is None:
        raise BadRow("no field holds what was asked")
    turns = messages_of(fields[name], "the prompt")
    shown = {key: value for key, value in fields.items() if key != name and not empty(value)}
    for person in dict.fromkeys(each.by for each in answers):
        yield from _of_one(turns, shown, [each for each in answers if each.by == person], columns, person or None)


def _of_one(turns: tuple[Turn, ...], shown: Row, answers: list[Said], columns: Row, by: str | None) -> Iterator[Judged]:
    order: dict[str, int] = {}
    rated = set[tuple[str, str]]()  # answers and criteria: of two questions that are one of ours the first counts
    rewritten = set[str | None]()
    ratings, scored, corrections, comments, left = list[Any](), list[Any](), list[Any](), list[Any](), dict[str, list[Any]]()
    written: Reply | None = None
    for each in answers:
        ranks = _ranks(each.value, shown)
        about = _field_of(each.question, shown)
        about_what = (about or "", _criterion(each.question))
        is_text = isinstance(each.value, str) and bool(each.value.strip())
        if ranks and not order:
            order = ranks
        elif ranks:
            left.setdefault(each.question, []).append(each.value)
        elif about is not None and about_what not in rated and isinstance(each.value, str | bool) and is_label(each.value):
            rated.add(about_what)
            ratings.append((*about_what, GOOD if label_of(each.value, each.question) else BAD))
        elif about is not None and about_what not in rated and (score := score_of(each.value)) is not None:
            rated.add(about_what)
            scored.append((*about_what, score))
        elif is_text and _REWRITTEN.search(each.question) and about not in rewritten:
            rewritten.add(about)
            if about is None:
                written = Reply(said(each.value, each.question))
            else:
                corrections.append((about, said(each.value, each.question)))
        elif is_text and not (is_label(each.value) or score_of(each.value) is not None or _REWRITTEN.search(each.question)):
            comments.append((about, said(each.value, each.question)))
        else:
            left.setdefault(each.question, []).append(each.value)
    names = list(order) or list(dict.fromkeys(name for name, *_ in (*ratings, *scored, *corrections, *comments) if name is not None))
    if not names and written is None:
        return
    texts = [reply_of(shown[name], name) for name in names]
    slots = {name: slot for slot, name in enumerate(names)}
    told: dict[str, Any] = {
        "ratings": tuple((slots[name], *more) for name, *more in ratings if name in slots),
        "scored": tuple((slots[name], *more) for name, *more in scored if name in slots),
        "corrections": tuple((slots[name], text) for name, text in corrections if name in slots),
        "comments": tuple((slots.get(name) if name is not None else None, text) for name, text in comments),
    }
    beside = columns | rest(shown, *names) | ({"responses": _single(left)} if left else {})
    if order:
        yield ranked(turns, texts, list(order.values()), written=written, columns=beside, by=by, **told)
    else:
        yield judged(turns, texts, written=written, columns=beside, by=by, **told)


def _single(left: dict[str, list[Any]]) -> Row:
    return {question: values[0] if len(values) == 1 else values for question, values in left.items()}


def _ranks(value: object, shown: Row) -> dict[str, int]:
    """Fields in the order in which the record has them, with their ranks: of a ranking, an ordered list, or a choice of one."""
    if isinstance(value, list) and len(value) > 1 and all(isinstance(one, dict) and type(one.get("rank")) is int for one in value):
        found = {str(one.get("value")): int(one["rank"]) for one in value}
        if any(name not in shown for name in found):
            raise BadRow("a ranked field is not in the record")
        return found
    if isinstance(value, list) and len(value) > 1 and all(isinstance(one, str) and one in shown for one in value):
        return {one: rank for rank, one in enumerate(value, 1)}
    if isinstance(value, str) and value in shown and len(shown) > 1:
        return {name: 1 if name == value else 2 for name in shown if isinstance(shown[name], str | list)}
    return {}


def _field_of(question: str, shown: Row) -> str | None:
    """The answer that a question is about: the only one, the one that it names, or the one called so by custom."""
    named = [name for name in shown if name.lower() in question.lower()]
    if named:
        return max(named, key=len)
    if len(shown) == 1:
        return next(iter(shown))
    return next((name for name in ("response", "completion", "answer", "output") if name in shown), None)


def _criterion(question: str) -> str:
    return next((ours for ours, pattern in _CRITERIA if pattern.search(question.lower())), "overall")


# --- Argilla ---------------------------------------------------------------------------------------------------------------


def is_argilla(row: Row) -> bool:
    return isinstance(row.get("fields"), dict) and isinstance(row.get("responses"), list | dict)


def argilla(row: Row) -> Iterator[Judged]:
    """A record with fields and responses; only what was submitted counts."""
    fields, responses = row.get("fields"), row.get("responses")
    if not isinstance(fields, dict) or not isinstance(responses, list | dict):
        raise BadRow("no fields or no responses")
    if isinstance(responses, dict):  # by question, as newer versions write it
        found = [one | {"question_name": name} for name, of in responses.items() if isinstance(of, list) for one in of if isinstance(one, dict)]
    else:
        found = [one for each in responses if isinstance(each, dict) for one in _by_question(each)]
    told = [
        Said(str(one.get("question_name", "")), _listed(one.get("value")), str(one.get("user_id") or ""))
        for one in found if one.get("status", "submitted") in ("submitted", None)
    ]  # fmt: skip
    yield from read(fields, told, rest(row, "fields", "responses"))


def _by_question(response: Row) -> Iterator[Row]:
    """A response to one question, or to several in 'values'."""
    values = response.get("values")
    if isinstance(values, dict):
        for name, one in values.items():
            yield {**response, "question_name": name, "value": one.get("value") if isinstance(one, dict) else one}
    else:
        yield response


def _listed(value: object) -> object:
    """A list of objects that was written as an object of lists."""
    if isinstance(value, dict) and {"rank", "value"} <= value.keys() and all(isinstance(value[key], list) for key in ("rank", "value")):
        return [{"rank": rank, "value": name} for rank, name in zip(value["rank"], value["value"], strict=False)]
    return value


def is_argilla_table(row: Row) -> bool:
    for name, value in row.items():  # a loop, since every row of every shape is asked
        if (type(value) is list or type(value) is dict) and (name.endswith(".responses") or _is_column_of_answers(value)):
            return True
    return False


def _is_column_of_answers(value: object) -> bool:
    if isinstance(value, dict):
        return {"user_id", "value", "status"} <= value.keys()
    if not isinstance(value, list) or not value or not isinstance(value[0], dict) or "user_id" not in value[0]:
        return False
    return all(isinstance(one, dict) and {"user_id", "value", "status"} <= one.keys() for one in value)


def argilla_table(row: Row) -> Iterator[Judged]:
    """`to_datasets` and the hub form: a column for each field and each question."""
    told: list[Said] = []
    used: set[str] = set()
    for name, value in row.items():
        if name.endswith(".responses"):
            question = name.removesuffix(".responses")
            used |= {key for key in row if key.startswith(f"{question}.responses")}
            told += _in_columns(question, value, row.get(f"{name}.users"), row.get(f"{name}.status"))
        elif _is_column_of_answers(value):
            used.add(name)
            told += _in_lists(name, value)
    about = {key for key in row if key in _ABOUT or ".suggestion" in key or key.endswith(("-suggestion", "-suggestion-metadata"))}
    fields = {key: value for key, value in row.items() if key not in used | about and isinstance(value, str | list)}
    yield from read(fields, told, rest({key: row[key] for key in row if key in about}) | rest(row, *used, *about, *fields))


_ABOUT = frozenset("id status _server_id external_id metadata vectors inserted_at updated_at".split())


def _in_columns(question: str, values: object, users: object, statuses: object) -> Iterator[Said]:
    values = values if isinstance(values, list) else [values]
    people = users if isinstance(users, list) else [""] * len(values)
    states = statuses if isinstance(statuses, list) else ["submitted"] * len(values)
    for value, by, status in zip(values, people, states, strict=False):
        if status == "submitted" and value is not None:
            yield Said(question, _listed(value), str(by or ""))


def _in_lists(question: str, value: Any) -> Iterator[Said]:
    if isinstance(value, dict):
        if not all(isinstance(value[key], list) for key in ("user_id", "value", "status")):
            return
        value = [
            {"user_id": by, "value": one, "status": status}
            for by, one, status in zip(value["user_id"], value["value"], value["status"], strict=False)
        ]
    for one in value:
        if one.get("status") in ("submitted", None) and one.get("value") is not None:
            yield Said(question, _listed(one["value"]), str(one.get("user_id") or ""))


# --- Label Studio ----------------------------------------------------------------------------------------------------------


def is_label_studio(row: Row) -> bool:
    return isinstance(row.get("data"), dict) and isinstance(row.get("annotations"), list)


def label_studio(row: Row) -> Iterator[Judged]:
    """A task with annotations: pairwise, ranker, choices, rating, text."""
    data = row["data"]
    fields = {key: value for key, value in data.items() if isinstance(value, str | list)}
    items = {str(one.get("id")): one for value in data.values() if isinstance(value, list) for one in value if isinstance(one, dict) and "id" in one}
    for name, one in items.items():
        text = next((one[key] for key in ("body", "text", "html", "content", "title") if isinstance(one.get(key), str) and one[key].strip()), None)
        if text is not None:
            fields[name] = text
    if items:
        fields = {
            key: value for key, value in fields.items() if not (isinstance(value, list) and value and isinstance(value[0], dict) and "id" in value[0])
        }
    told: list[Said] = []
    for annotation in row["annotations"]:
        if isinstance(annotation, dict) and not annotation.get("was_cancelled") and isinstance(annotation.get("result"), list):
            by = annotation.get("completed_by")
            by = by.get("email", by.get("id")) if isinstance(by, dict) else by
            for result in annotation["result"]:
                told += _result(result, fields, "" if by is None else str(by))
    yield from read(fields, told, rest(row, "data", "annotations", "predictions"))


def _result(result: object, fields: Row, by: str) -> Iterator[Said]:
    if not isinstance(result, dict) or not isinstance(result.get("value"), dict):
        return
    value, about = result["value"], str(result.get("to_name", ""))
    question = f"{result.get('from_name', '')} {about}"
    if "selected" in value:
        if value["selected"] in ("left", "right"):
            ranks = (1, 2) if value["selected"] == "left" else (2, 1)
            yield Said(question, [{"value": name, "rank": rank} for name, rank in zip(_sides(about, fields), ranks, strict=True)], by)
    elif "ranker" in value:
        yield Said(question, _ranker(value["ranker"]), by)
    elif "rating" in value:
        yield Said(question, value["rating"], by)
    elif "choices" in value and isinstance(value["choices"], list):
        for choice in value["choices"]:
            yield Said(question, choice, by)
    elif "text" in value:
        texts = value["text"] if isinstance(value["text"], list) else [value["text"]]
        yield from (Said(question, text, by) for text in texts)


def _ranker(ranker: object) -> object:
    """An order, best first; or items in buckets whose names say which are good: those of one bucket tie."""
    if isinstance(ranker, list):
        return [str(one) for one in ranker]
    if not isinstance(ranker, dict):
        return []
    buckets = {str(name): items for name, items in ranker.items() if name != "_" and isinstance(items, list)}  # '_': not sorted yet
    if len(buckets) == 1:
        return [str(one) for items in buckets.values() for one in items]
    full = {name: items for name, items in buckets.items() if items}
    if unclear := [name for name in full if not is_label(name)]:
        raise BadRow(f"buckets such as {unclear[0][:40]!r} do not say whether what is in them is good or bad")
    good = {name: label_of(name, name) for name in full}
    best = any(good.values())
    return [{"value": str(one), "rank": 1 if good[name] or not best else 2} for name, items in full.items() for one in items]


_END = re.compile(r"(?:\d+|(?<=[_\-. ])[A-Za-z]+|[A-Z])$")


def _sides(about: str, fields: Row) -> list[str]:
    """The two fields that were compared, left and right: named by the labelling form, or alike at the end. The order in the data is no side."""
    named = [name.strip() for name in about.split(",")]
    if len(named) == 2 and all(name in fields for name in named):
        return named
    asked = next((name for name in ASKED if name in fields), None)
    others = [name for name, value in fields.items() if name != asked and isinstance(value, str)]
    for sides in (named, ["left", "right"]):
        found = [[name for name in others if _end(name) == _end(side)] for side in sides]
        if [len(names) for names in found] == [1, 1] and found[0] != found[1]:
            return [found[0][0], found[1][0]]
    raise BadRow(f"{about[:40]!r} does not say which fields were compared: call them as the form does")


def _end(name: str) -> str:
    found = _END.search(name)
    return (found[0] if found else name).lower()


# --- Prodigy ---------------------------------------------------------------------------------------------------------------


def is_prodigy(row: Row) -> bool:
    return ("answer" in row and row["answer"] in ("accept", "reject", "ignore")) or (isinstance(row.get("options"), list) and "accept" in row)


def prodigy(row: Row) -> Iterator[Judged]:
    """Choices (the accepted options beat the others), and answers that were accepted or rejected as a whole; what was ignored is passed over."""
    if row.get("answer", "accept") not in ("accept", "reject", "ignore"):
        raise BadRow(f"an unknown answer {str(row['answer'])[:40]!r}")
    if row.get("answer") == "ignore":
        return
    by = row.get("_annotator_id", row.get("_session_id"))
    more: dict[str, Any] = {"by": str(by) if by else None}
    if isinstance(row.get("options"), list):
        accepted, options = row.get("accept") or [], row["options"]
        if not isinstance(accepted, list) or not all(isinstance(option, dict) for option in options):
            raise BadRow("options or accept are no lists")
        if row.get("answer", "accept") == "accept" and 0 < len(accepted) < len(options):
            answers = [reply_of(option.get("text"), "an option") for option in options]
            ranks = [1 if option.get("id") in accepted else 2 for option in options]
            turns = messages_of(row.get("text", row.get("prompt")), "text")
            yield ranked(turns, answers, ranks, columns=rest(row, "options", "accept", "answer", "text", "prompt"), **more)
        return
    turns = messages_of(row.get("prompt", row.get("text")), "prompt")
    rating = GOOD if row.get("answer", "accept") == "accept" else BAD
    columns = rest(row, "prompt", "text" if "prompt" not in row else "", "response", "completion", "answer")
    yield judged(
        turns, (reply_of(row.get("response", row.get("completion")), "response"),), ratings=((0, "overall", rating),), columns=columns, **more
    )
