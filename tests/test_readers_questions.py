"""Questions about pictures: DAQUAR, VQA-RAD, SHAPES, VQA v2 and GQA; genuine, in every layout, and damaged."""

from __future__ import annotations

import hashlib
import json
import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from readers import genuine, put

from hetgraph.errors import HetgraphError
from hetgraph.tasks import datasets
from hetgraph.tasks.datasets import official
from hetgraph.tasks.datasets.official import gqa, vqa2, vqa_rad
from hetgraph.tasks.datasets.official.parts import Question


def changed(records: list[dict], at: int, **fields: Any) -> list[dict]:
    """A copy with other fields in one record; None takes a field away."""
    copy = json.loads(json.dumps(records))
    copy[at].update(fields)
    copy[at] = {key: value for key, value in copy[at].items() if value is not None}
    return copy


# DAQUAR

TRIPLES = [
    {"question": "what is on the desk ?", "answer": "book, scissor", "image": "image3"},
    {"question": "how many chairs are there ?", "answer": "2", "image": "image3"},
    {"question": "what is in the image on the wall ?", "answer": "cat", "image": "image12"},
]


def daquar_files(layout: str, rows: list[dict]) -> dict[str, Any]:
    if layout == "JSON":
        return {f"{part}.json": rows for part in ("train", "test")}
    if layout == "triples":
        text = "".join(f"{r['question']}\n{r['answer']}\n{r['image']}\n" for r in rows)
        return {f"qa.894.raw.{part}.format_triple": text for part in ("train", "test")}
    text = "".join(f"{r['question'].removesuffix(' ?')} in the {r['image']} ?\n{r['answer']}\n" for r in rows)
    return {f"qa.894.raw.{part}.txt": text for part in ("train", "test")}


@pytest.mark.parametrize("layout", ["official", "triples", "JSON"])
def test_daquar_is_the_same_from_every_layout(tmp_path, layout) -> None:
    data = datasets.open("daquar", put(tmp_path, daquar_files(layout, TRIPLES)))
    assert data.part("train") == (
        Question("train-0", "image3", "what is on the desk ?", ("book", "scissor"), "train"),
        Question("train-1", "image3", "how many chairs are there ?", ("2",), "train"),
        Question("train-2", "image12", "what is in the image on the wall ?", ("cat",), "train"),
    )
    assert [q.split for q in data.of("image12")] == ["train", "test"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("qa.894.raw.train.txt", "what is it ?\nbook\n", r"line 1: expected '... in the image<number> \?'"),
        (
            "qa.894.raw.train.txt",
            "what in the image3 ?\nbook\nwhy in the image4 ?\n",
            "expected groups of 2 lines, got 3",
        ),
        (
            "qa.894.raw.train.format_triple",
            "what ?\nbook\nimage3\nwhy ?\nx\nfoto4\n",
            "line 6: expected 'image<number>'",
        ),
        ("train.json", changed(TRIPLES, 1, answer=2), "record 2: field 'answer' must be text, got 2"),
        ("train.json", changed(TRIPLES, 2, image=None), "record 3: field 'image' is missing"),
        ("train.json", json.dumps(TRIPLES)[:-30], "record 3 is damaged"),
    ],
)
def test_damaged_daquar_is_refused(tmp_path, name, content, message) -> None:
    with pytest.raises(HetgraphError, match=f"DAQUAR: .*{message}"):
        datasets.open("daquar", put(tmp_path, {name: content})).part("train")


def test_the_genuine_daquar_in_all_three_layouts(tmp_path) -> None:
    folder = genuine("daquar")
    data = datasets.open("daquar", folder)
    assert data.counts() == {
        "train": {"questions": 6795, "images": 794},
        "test": {"questions": 5673, "images": 653},
    }
    assert data.unfound() == ()
    assert not {q.image for q in data.part("train")} & {q.image for q in data.part("test")}
    assert official.missing("daquar", folder) == []
    rows = json.loads((folder / "test.json").read_text())
    assert [(q.question, ", ".join(q.answers), q.image) for q in data.part("test")] == [
        (r["question"], r["answer"], r["image"]) for r in rows
    ]
    for layout in ("official", "triples"):
        own = datasets.open("daquar", put(tmp_path / layout, daquar_files(layout, rows)))
        assert [(q.question, q.answers, q.image) for q in own.part("test")] == [
            (q.question, q.answers, q.image) for q in data.part("test")
        ]


# VQA-RAD


def rad(qid: str, image: str, phrase: str, **fields: Any) -> dict[str, Any]:
    return {
        "qid": qid,
        "phrase_type": phrase,
        "qid_linked_id": "03f4",
        "image_case_url": "",
        "image_name": image,
        "image_organ": "HEAD",
        "evaluation": "evaluated",
        "question": f"Is {qid} there?",
        "question_type": "PRES",
        "answer": "Yes",
        "answer_type": "CLOSED ",
    } | fields


PUBLIC = [
    rad("0", "synpic1.jpg", "freeform"),
    rad("1", "synpic1.jpg", "test_para", answer=3.5),
    rad("2", "synpic2.jpg", "para"),
    rad("3", "synpic3.jpg", "test_freeform"),
]


def test_vqa_rad_takes_the_test_part_from_the_phrase_type(tmp_path) -> None:
    put(tmp_path, {vqa_rad.PUBLIC: PUBLIC, "VQA_RAD Image Folder/synpic1.jpg": ""})
    data = datasets.open("vqa_rad", tmp_path)
    assert [q.id for q in data.part("train")] == ["0", "2"]
    [first, second] = data.part("test")
    assert first.answers == ("3.5",)
    assert first.more == {
        "image_organ": "HEAD",
        "answer_type": "CLOSED",
        "question_type": "PRES",
        "phrase_type": "test_para",
    }
    assert first.file == tmp_path / "VQA_RAD Image Folder" / "synpic1.jpg"
    assert second.file is None
    assert data.unfound() == ("synpic2.jpg", "synpic3.jpg")


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (changed(PUBLIC, 1, qid="0"), "record 2: question '0' is there twice, before as number 1"),
        (changed(PUBLIC, 1, image_organ="FOOT"), "record 2: field 'image_organ' must be one of .*, got 'FOOT'"),
        (changed(PUBLIC, 1, phrase_type="dev"), "record 2: field 'phrase_type' must be one of .*, got 'dev'"),
        (changed(PUBLIC, 1, answer_type=None), "record 2: field 'answer_type' is missing"),
        (changed(PUBLIC, 1, answer=[]), r"record 2: field 'answer' must be text or a number, got \[\]"),
        (changed(PUBLIC, 1, question=7), "record 2: field 'question' must be text, got 7"),
    ],
)
def test_damaged_vqa_rad_is_refused_with_the_record(tmp_path, records, message) -> None:
    with pytest.raises(HetgraphError, match=f"VQA-RAD: .*{message}"):
        datasets.open("vqa_rad", put(tmp_path, {vqa_rad.PUBLIC: records})).part("train")


def test_an_unknown_split_is_refused_and_a_question_in_both_parts(tmp_path) -> None:
    put(tmp_path, {"trainset.json": PUBLIC[:1], "testset.json": PUBLIC[:1]})
    with pytest.raises(HetgraphError, match=r"split must be one of .*, got 'random'"):
        datasets.open("vqa_rad", tmp_path, split="random")
    with pytest.raises(HetgraphError, match="question '0' is there twice"):
        len(datasets.open("vqa_rad", tmp_path))


def test_the_genuine_vqa_rad_and_its_split_without_common_pictures() -> None:
    folder = genuine("vqa_rad")
    data = datasets.open("vqa_rad", folder)
    assert data.counts() == {
        "train": {"questions": 3064, "images": 314},
        "test": {"questions": 451, "images": 203},
    }
    # the reason for the second split
    assert {q.image for q in data.part("test")} < {q.image for q in data.part("train")}
    disjoint = datasets.open("vqa_rad", folder, split="image-disjoint")
    parts = {part: disjoint.part(part) for part in disjoint.parts}
    assert {part: len(questions) for part, questions in parts.items()} == {"train": 2842, "test": 673}
    test = {q.image for q in parts["test"]}
    assert len(test) == 60
    assert not test & {q.image for q in parts["train"]}
    assert all(int(hashlib.sha256(image.encode()).hexdigest(), 16) % 5 == 0 for image in test)
    assert {q.id for q in disjoint} == {q.id for q in data}
    assert data.unfound() == ()
    rows = json.loads((folder / "testset.json").read_text())
    assert [(q.id, q.question, q.answers) for q in data.part("test")] == [
        (str(r["qid"]), r["question"].strip(), (r["answer"].strip(),)) for r in rows
    ]
    assert official.missing("vqa_rad", folder) == []


# SHAPES


def put_shapes(folder: Path, images: np.ndarray, rows: list[dict], part: str = "val") -> Path:
    """The official layout, from the records of the other one."""
    folder.mkdir(exist_ok=True)
    np.save(folder / f"{part}.input.npy", images)
    lines = {"query_str.txt": "question", "query": "query", "output": "answer"}
    return put(folder, {f"{part}.{ending}": "".join(f"{r[key]}\n" for r in rows) for ending, key in lines.items()})


SHAPES = [
    {"image": i, "question": f"is {i} red", "query": f"(is {i} red)", "answer": a}
    for i, a in enumerate(("true", "false"))
]
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 30, 30, 3), dtype=np.uint8)


def test_shapes_is_the_same_from_both_layouts_and_its_pictures_are_mapped(tmp_path) -> None:
    one = datasets.open("shapes", put_shapes(tmp_path / "a", PIXELS, SHAPES))
    put(tmp_path / "b", {"val.json": SHAPES})
    np.savez(tmp_path / "b" / "images.npz", val_images=PIXELS)
    other = datasets.open("shapes", tmp_path / "b")
    assert one.part("val") == other.part("val")
    for i, question in enumerate(one):
        assert (question.id, question.question, question.answers) == (f"val-{i}", f"is {i} red", (SHAPES[i]["answer"],))
        assert question.more == {"query": f"(is {i} red)", "row": i}
        np.testing.assert_array_equal(one.picture(question), PIXELS[i][:, :, [2, 1, 0]])
        np.testing.assert_array_equal(other.picture(question), PIXELS[i][:, :, [2, 1, 0]])
    assert isinstance(one.images("val").base, np.memmap)


@pytest.mark.parametrize(
    ("images", "rows", "message"),
    [
        (PIXELS[:1], SHAPES, "picture 1 of 1 is not there"),
        (PIXELS.astype(float), SHAPES, r"images are uint8 \[N, 30, 30, 3\], got float64"),
        (PIXELS, changed(SHAPES, 1, answer="maybe"), "line 2: expected one of .*, got 'maybe'"),
    ],
)
def test_damaged_shapes_are_refused(tmp_path, images, rows, message) -> None:
    with pytest.raises(HetgraphError, match=f"SHAPES: .*{message}"):
        datasets.open("shapes", put_shapes(tmp_path, images, rows)).part("val")


def test_shapes_of_different_lengths_truncated_or_wrong_json_are_refused(tmp_path) -> None:
    put(put_shapes(tmp_path, PIXELS, SHAPES), {"val.query": "(is 0 red)\n"})
    with pytest.raises(HetgraphError, match=r"val\.output: 2 answers to 2 questions, 1 expressions"):
        datasets.open("shapes", tmp_path).part("val")
    whole = (tmp_path / "val.input.npy").read_bytes()
    (tmp_path / "val.input.npy").write_bytes(whole[:-10])
    with pytest.raises(HetgraphError, match=r"val\.input\.npy cannot be read"):
        datasets.open("shapes", tmp_path).images("val")
    put(tmp_path / "b", {"val.json": changed(SHAPES, 1, image="x")})
    np.savez(tmp_path / "b" / "images.npz", val_images=PIXELS)
    with pytest.raises(HetgraphError, match="record 2: field 'image' must be a whole number, got 'x'"):
        datasets.open("shapes", tmp_path / "b").part("val")
    put(tmp_path / "b", {"val.json": changed(SHAPES, 1, image=-1)})
    with pytest.raises(HetgraphError, match="picture -1 of 2 is not there"):
        datasets.open("shapes", tmp_path / "b").part("val")


def test_the_genuine_shapes_in_both_layouts(tmp_path) -> None:
    folder = genuine("shapes_vqa")
    data = datasets.open("shapes", folder)
    assert {part: own["questions"] for part, own in data.counts().items()} == {
        "train_tiny": 64,
        "train_small": 640,
        "train_extra": 912,
        "val": 1024,
        "test": 1024,
    }
    assert official.missing("shapes", folder) == []
    rows = json.loads((folder / "val.json").read_text())
    with np.load(folder / "images.npz") as file:
        images = file["val_images"]
    own = datasets.open("shapes", put_shapes(tmp_path, images[[r["image"] for r in rows]], rows))
    assert [(q.question, q.answers, q.more["query"]) for q in own.part("val")] == [
        (q.question, q.answers, q.more["query"]) for q in data.part("val")
    ]
    for one, other in zip(own.part("val")[::100], data.part("val")[::100], strict=True):
        np.testing.assert_array_equal(own.picture(one), data.picture(other))


# VQA v2

ASKED = [
    {"image_id": 9, "question": "How many?", "question_id": 90},
    {"image_id": 9, "question": "Red?", "question_id": 91},
]
ANSWERS = [
    {
        "question_id": q["question_id"],
        "image_id": 9,
        "question_type": "how many",
        "answer_type": "number",
        "multiple_choice_answer": "2",
        "answers": [{"answer": "2", "answer_confidence": "yes", "answer_id": i} for i in range(1, 11)],
    }
    for q in reversed(ASKED)
]
NAMES = {
    part: (f"v2_OpenEnded_mscoco_{file}_questions.json", f"v2_mscoco_{file}_annotations.json")
    for part, file in vqa2.PARTS.items()
}


def put_vqa(folder: Path, part: str = "val", asked: list = ASKED, answers: list | None = ANSWERS) -> Path:
    files: dict[str, Any] = {NAMES[part][0]: {"info": {}, "task_type": "Open-Ended", "questions": asked}}
    if answers is not None:
        files[NAMES[part][1]] = {"info": {}, "annotations": answers}
    return put(folder, files)


def test_vqa_joins_questions_and_ten_answers(tmp_path) -> None:
    put_vqa(tmp_path)
    put_vqa(tmp_path, "test", [{"image_id": 8, "question": "Why?", "question_id": 80}], None)
    put_vqa(tmp_path, "test-dev", [{"image_id": 8, "question": "Why?", "question_id": 80}], None)
    put(tmp_path / "pictures", {"COCO_val2014_000000000009.jpg": "", "COCO_test2015_000000000008.jpg": ""})
    data = datasets.open("vqa2", tmp_path, images=tmp_path / "pictures")
    assert data.parts == ("val", "test")
    [first, second] = data.part("val")
    assert (first.id, first.image, first.question, first.answers) == ("90", "9", "How many?", ("2",) * 10)
    assert second.more == {"best": "2", "question_type": "how many", "answer_type": "number"}
    assert first.file == tmp_path / "pictures" / "COCO_val2014_000000000009.jpg"
    assert data.part("test")[0].answers == ()
    assert data.unfound() == ()
    other = datasets.open("vqa2", tmp_path, images=tmp_path / "pictures", test="test-dev")
    assert other.parts == ("val", "test-dev")
    assert other.unfound() == ()
    with pytest.raises(HetgraphError, match="test must be 'test' or 'test-dev', got 'dev'"):
        datasets.open("vqa2", tmp_path, test="dev")


@pytest.mark.parametrize(
    ("asked", "answers", "message"),
    [
        (changed(ASKED, 1, question_id=90), ANSWERS, "record 2 of 'questions': question '90' is there twice"),
        (changed(ASKED, 1, question=None), ANSWERS, "record 2 of 'questions': field 'question' is missing"),
        (changed(ASKED, 1, image_id="9"), ANSWERS, "field 'image_id' must be a whole number, got '9'"),
        (ASKED[:1], ANSWERS, "question '91' is in one of questions and annotations only"),
        (ASKED, ANSWERS[:1], "question '90' is in one of questions and annotations only"),
        (changed(ASKED, 1, image_id=8), ANSWERS, "question '91' is about picture 8, its answers 9"),
        (ASKED, changed(ANSWERS, 0, answers=ANSWERS[0]["answers"][:9]), "'answers' must have 10 records, got 9"),
        (ASKED, changed(ANSWERS, 0, answers=[{"answer": 2}] * 10), "answer 1: field 'answer' must be text, got 2"),
        ([], ANSWERS, "expected records in 'questions', got none"),
        (ASKED, [], "expected records in 'annotations', got none"),
    ],
)
def test_damaged_vqa_is_refused_with_the_record(tmp_path, asked, answers, message) -> None:
    with pytest.raises(HetgraphError, match=f"VQA v2: .*{message}"):
        datasets.open("vqa2", put_vqa(tmp_path, "val", asked, answers)).part("val")


@given(
    answers=st.lists(st.sampled_from(["2", "two", "cat", "a dog"]), min_size=1, max_size=10),
    own=st.sampled_from(["2", "dog"]),
)
def test_soft_accuracy_is_the_mean_over_all_that_leave_one_out(answers, own) -> None:
    said = [{"two": "2", "a dog": "dog"}.get(answer, answer) for answer in answers]
    rounds = [[said[i] for i in left] for left in combinations(range(len(said)), len(said) - 1)]
    expected = sum(min(r.count(own) / 3, 1) for r in rounds) / len(rounds)
    assert vqa2.soft_accuracy(own, answers) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("The Cat.", "cat"),
        ("two", "2"),
        ("none", "0"),
        ("1,000", "1000"),
        ("2.5", "2.5"),
        ("red, white", "red white"),
        ("man's", "man's"),
        ("black/white", "black white"),
        ("  a  an ", ""),
    ],
)
def test_answers_are_compared_without_articles_punctuation_and_number_words(answer, wanted) -> None:
    assert vqa2.normalised(answer) == wanted
    with pytest.raises(HetgraphError, match="no answers to compare"):
        vqa2.soft_accuracy(answer, [])


# GQA

QUESTIONS = {
    "02930152": {
        "semantic": [{"operation": "select", "dependencies": [], "argument": "sky"}],
        "entailed": [],
        "equivalent": ["02930152"],
        "question": "Is the sky dark?",
        "imageId": "2354786",
        "isBalanced": True,
        "groups": {"global": None, "local": "06-sky_dark"},
        "answer": "yes",
        "semanticStr": "select: sky",
        "annotations": {},
        "types": {"detailed": "verifyAttr", "semantic": "attr", "structural": "verify"},
        "fullAnswer": "Yes, the sky is dark.",
    }
}
SCENES = {
    "2354786": {
        "width": 640,
        "height": 480,
        "location": "outdoors",
        "objects": {
            "11": {"name": "sky", "x": 0, "y": 0, "w": 640, "h": 100, "attributes": ["dark", "blue"], "relations": []},
            "12": {
                "name": "tree",
                "x": 10,
                "y": 50,
                "w": 20,
                "h": 60,
                "attributes": [],
                "relations": [{"object": "11", "name": "below"}, {"object": "12", "name": "near"}],
            },
        },
    },
    "7": {"width": 5, "height": 6, "objects": {}},
}


def test_gqa_gives_questions_and_scene_graphs(tmp_path) -> None:
    test = {"1": {"question": "Who?", "imageId": "n5", "isBalanced": True}}
    put(
        tmp_path,
        {
            "val_balanced_questions.json": QUESTIONS,
            "test_balanced_questions.json": test,
            "val_sceneGraphs.json": SCENES,
        },
    )
    put(tmp_path / "images", {"2354786.jpg": ""})
    data = datasets.open("gqa", tmp_path, images=tmp_path / "images")
    assert data.parts == ("val", "test")
    [question] = data.part("val")
    assert question == Question(
        "02930152", "2354786", "Is the sky dark?", ("yes",), "val", tmp_path / "images" / "2354786.jpg"
    )
    assert question.more == {"full_answer": "Yes, the sky is dark.", "types": QUESTIONS["02930152"]["types"]}
    assert data.part("test") == (Question("1", "n5", "Who?", (), "test"),)
    graph = data.graphs("val")["2354786"]
    assert (graph.names, graph.attributes) == (("sky", "tree"), (("dark", "blue"), ()))
    assert graph.boxes.tolist() == [[0, 0, 640, 100], [10, 50, 30, 110]]
    assert graph.edges.tolist() == [[1, 1], [0, 1]]
    assert graph.relations == ("below", "near")
    empty = data.graphs("val")["7"]
    assert (empty.boxes.shape, empty.edges.shape) == ((0, 4), (2, 0))
    assert data.counts() == {
        "val": {"questions": 1, "images": 1, "scene graphs": 2},
        "test": {"questions": 1, "images": 1},
    }
    with pytest.raises(HetgraphError, match=r"only the parts \('train', 'val'\) have scene graphs, got 'test'"):
        data.graphs("test")


def gqa_question(**fields: Any) -> dict[str, Any]:
    return {"02930152": changed([QUESTIONS["02930152"]], 0, **fields)[0]}


def scene(**fields: Any) -> dict[str, Any]:
    return {"2354786": SCENES["2354786"] | {"objects": {"12": SCENES["2354786"]["objects"]["12"] | fields}}}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("val_balanced_questions.json", gqa_question(answer=None), "question '02930152': field 'answer' is missing"),
        ("val_balanced_questions.json", gqa_question(types=[]), "field 'types' must be an object, got"),
        ("val_balanced_questions.json", gqa_question(types={"semantic": 1}), "field 'types' must be an object of text"),
        ("val_balanced_questions.json", '{"1": {}, "1": {}}', "question '1': field 'question' is missing"),
        ("val_balanced_questions.json", [1], "expected an object of questions, got a list"),
        ("val_sceneGraphs.json", scene(), "object '12': relation 1 leads to the object '11', which is not there"),
        ("val_sceneGraphs.json", scene(x="a"), "object '12': field 'x' must be a finite number, got 'a'"),
        ("val_sceneGraphs.json", '{"7": {"width": 5, "height": 6, "objects": {}}, ' * 2, "a name is damaged"),
        ("val_sceneGraphs.json", [1], "expected an object of scene graphs, got a list"),
    ],
)
def test_damaged_gqa_is_refused_with_the_record(tmp_path, name, content, message) -> None:
    data = datasets.open("gqa", put(tmp_path, {name: content}))
    with pytest.raises(HetgraphError, match=f"GQA: .*({message})"):
        data.part("val") if "questions" in name else data.graphs("val")


def test_a_question_that_is_there_twice_is_refused(tmp_path) -> None:
    [(name, question)] = QUESTIONS.items()
    text = f'{{"{name}": {json.dumps(question)}, "{name}": {json.dumps(question)}}}'
    path = put(tmp_path, {"val_balanced_questions.json": text}) / "val_balanced_questions.json"
    with pytest.raises(HetgraphError, match="question '02930152' is there twice, before as number 1"):
        gqa.read_questions(path)


def test_a_copy_of_a_genuine_folder_with_one_file_truncated_is_reported(tmp_path) -> None:
    folder = genuine("vqa_rad")
    for name in ("trainset.json", "testset.json"):
        shutil.copy(folder / name, tmp_path / name)
    whole = (tmp_path / "testset.json").read_bytes()
    (tmp_path / "testset.json").write_bytes(whole[: len(whole) // 2])
    [finding] = official.missing("vqa_rad", tmp_path)
    assert (finding.file, finding.fault) == ("testset.json", "damaged")
