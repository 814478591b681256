"""Tables of every form to nodes, against statistics of numpy and pandas and against hand-made rows."""

from __future__ import annotations

import datetime
import json
import math
from collections import namedtuple
from decimal import Decimal

import numpy as np
import pytest
import torch
from extras import needs_pyarrow

from hetgraph import GraphBuilder, Sample, builders
from hetgraph.encoders import Column, TableCells, TableRows, encoder_from_config
from hetgraph.encoders.media import Item
from hetgraph.encoders.read_table import read_table
from hetgraph.encoders.text import hashed_vector
from hetgraph.errors import HetgraphError, MediaError

CSV = """age,sex,seen,note
40,f,2020-02-29,fine
,m,2021-12-31 12:00,NA
25.5,,,ok
1e1,f,2019-07-01,fine
"""
ROWS = [
    {"age": 40, "sex": "f", "seen": datetime.date(2020, 2, 29), "note": "fine"},
    {"age": None, "sex": "m", "seen": datetime.datetime(2021, 12, 31, 12), "note": None},
    {"age": 25.5, "sex": None, "seen": None, "note": "ok"},
    {"age": 10.0, "sex": "f", "seen": datetime.date(2019, 7, 1), "note": "fine"},
]
AGES = np.array([40, 25.5, 10])


@pytest.fixture
def rows():
    return TableRows().fitted([CSV])


def test_kinds_and_statistics_are_those_of_the_training_cells(rows):
    found = {column.name: column for column in rows.columns}
    assert {name: column.kind for name, column in found.items()} == {
        "age": "number",
        "sex": "category",
        "seen": "date",
        "note": "category",
    }
    assert found["age"].mean == pytest.approx(AGES.mean())
    assert found["age"].std == pytest.approx(AGES.std())
    assert found["sex"].values == ("f", "m")
    assert found["note"].values == ("fine", "ok")


def of_date(year, month, day, weekday, hour=0):
    turns = [(month - 1) / 12, (day - 1) / 31, weekday / 7, hour / 24]
    return [(year - 2000) / 50, *(f(2 * math.pi * turn) for turn in turns for f in (math.sin, math.cos))]


def test_a_csv_with_missing_cells_becomes_rows_with_indicators(rows):
    [nodes] = rows([CSV])
    no_date = [0.0] * 9
    ages = (AGES - AGES.mean()) / AGES.std()
    expected = [
        [0, ages[0], 0, 1, 0, 0, 0, *of_date(2020, 2, 29, 5), 0, 1, 0, 0],
        [1, 0, 0, 0, 1, 0, 0, *of_date(2021, 12, 31, 4, 12), 1, 0, 0, 0],
        [0, ages[1], 1, 0, 0, 0, 1, *no_date, 0, 0, 1, 0],
        [0, ages[2], 0, 1, 0, 0, 0, *of_date(2019, 7, 1, 0), 0, 1, 0, 0],
    ]
    torch.testing.assert_close(nodes["x"], torch.tensor(expected, dtype=torch.float32))
    assert rows.dim == 20


def test_cells_have_a_part_for_each_kind_and_know_their_column(rows):
    cells = TableCells(columns=rows.columns, name_dim=4)
    [nodes] = cells([CSV])
    [whole] = rows([CSV])
    assert cells.dim == 1 + 1 + 3 + 9 + 4
    assert nodes["column"].tolist() == [0, 1, 2, 3] * 4
    assert nodes["column"].dtype == torch.int64
    x = nodes["x"].reshape(4, 4, -1)
    for place, (name, start, there) in enumerate(
        [("age", 0, slice(1, 2)), ("sex", 2, slice(2, 5)), ("seen", 6, slice(5, 14)), ("note", 16, slice(2, 5))]
    ):
        width = there.stop - there.start
        assert torch.equal(x[:, place, 0], whole["x"][:, start])
        assert torch.equal(x[:, place, there], whole["x"][:, start + 1 : start + 1 + width])
        others = [i for i in range(1, 14) if not there.start <= i < there.stop]
        assert not x[:, place, others].any()
        assert torch.equal(x[:, place, 14:], torch.tensor(hashed_vector(name, 4)).repeat(4, 1))


def test_cells_fit_the_ready_made_schema():
    cells = TableCells().fitted([CSV])
    schema = builders.table(cells.dim)
    graph = GraphBuilder(schema)([Sample(cell=nodes) for nodes in cells([CSV, "age\n3\n"])])
    assert graph.fields["cell"]["column"].tolist() == [0, 1, 2, 3] * 4 + [0, 1, 2, 3]
    assert builders.media(cell=("table", cells.dim)) == schema


def forms(tmp_path):
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "a.dat"
    path.write_text(CSV)
    marked = ("\ufeff" + CSV).encode()
    frame = pandas.DataFrame(ROWS)
    made = {
        "text": CSV,
        "bytes": CSV.encode(),
        "byte order mark": marked,
        "path": path,
        "path as text": str(path),
        "windows": CSV.replace("\n", "\r\n").encode(),
        "semicolons": CSV.replace(",", ";"),
        "tabs": CSV.replace(",", "\t"),
        "quoted": CSV.replace("fine", '"fine"').replace("sex", '" sex "'),
        "blank lines": CSV.replace("\n", "\n\n"),
        "dicts": ROWS,
        "tuple of dicts": tuple(ROWS),
        "pandas": frame,
        "pandas with other types": frame.convert_dtypes(),
    }
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return made
    dated = [row | {"seen": row["seen"] and datetime.datetime.fromisoformat(str(row["seen"]))} for row in ROWS]
    table = pa.Table.from_pylist(dated)
    pq.write_table(table, tmp_path / "a.csv")  # the content decides, not the name
    pandas.DataFrame(dated).to_parquet(tmp_path / "b.parquet")
    return made | {"parquet": tmp_path / "a.csv", "pandas parquet": tmp_path / "b.parquet", "arrow": table}


def test_tables_of_every_form_give_the_same(tmp_path, rows):
    [expected] = rows([CSV])
    for name, form in forms(tmp_path).items():
        [nodes] = rows([form])
        assert torch.equal(nodes["x"], expected["x"]), name
        again = TableRows().fitted([form])
        assert [c.kind for c in again.columns] == [c.kind for c in rows.columns], name
        assert torch.equal(again([form])[0]["x"], expected["x"]), name


def test_a_row_is_a_table_of_one_row(rows):
    assert torch.equal(rows([ROWS[0]])[0]["x"], rows([CSV])[0]["x"][:1])
    assert len(rows(ROWS)) == 4


def test_other_columns_are_left_aside_and_absent_ones_are_missing(rows):
    [nodes] = rows([[{"more": 1, "age": 40}, {"sex": "x", "age": None}]])
    [alone] = rows([{"age": 40, "sex": None, "seen": float("nan"), "note": "null"}])
    assert torch.equal(nodes["x"][0], alone["x"][0])
    assert nodes["x"][1].nonzero().flatten().tolist() == [0, 5, 6, 16]  # an unknown category has a place of its own
    with pytest.raises(MediaError, match=r"^item 0: expected at least one of the columns \['age', .*, got \['more'\]"):
        rows([{"more": 1}])


def test_settings_by_way_of_json_rebuild_an_equal_encoder(rows):
    for encoder in (rows, TableCells(kinds={"note": "ignore"}).fitted([CSV]), TableCells()):
        again = encoder_from_config(json.loads(json.dumps(encoder.config())))
        assert again.config() == encoder.config()
        assert again.dim == encoder.dim
        assert again.fingerprint == encoder.fingerprint
    assert torch.equal(encoder_from_config(rows.config())([CSV])[0]["x"], rows([CSV])[0]["x"])


def test_an_encoder_is_fitted_once_and_by_all_tables():
    numbers = np.random.default_rng(0).normal(50, 7, 30)
    tables = [[{"a": value} for value in part] for part in np.split(numbers, 3)]
    fitted = TableRows().fitted(tables)
    assert fitted.columns[0].mean == pytest.approx(numbers.mean())
    assert fitted.columns[0].std == pytest.approx(numbers.std())
    assert fitted.fitted([[{"b": 1}]]) is fitted
    x = torch.cat([nodes["x"] for nodes in fitted(tables)])[:, 1]
    assert x.mean().item() == pytest.approx(0, abs=1e-6)
    assert x.std(correction=0).item() == pytest.approx(1)


def test_an_encoder_without_columns_says_what_to_do():
    with pytest.raises(HetgraphError, match=r"TableCells knows no columns yet: call fitted\(tables\) first"):
        TableCells()([CSV])
    with pytest.raises(HetgraphError, match="expected tables with columns to learn from, got none"):
        TableCells().fitted([])
    with pytest.raises(HetgraphError, match="expected tables with columns"):
        TableCells(kinds={"a": "ignore"}).fitted([{"a": 1}])


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ([1, 2.5, None], "number"),
        (["1", "-2.5e-3", " .5 "], "number"),
        ([Decimal("1.5"), np.int8(3), np.float32(2)], "number"),
        ([True, False], "category"),
        (["1", "x"], "category"),
        (["1_000", "2"], "category"),
        (["2020-01-01", "2020-01-01T10:00:00Z", "2020-01-01 10:00:00.5+02:00"], "date"),
        (["2021-02-31", "2020-01-01"], "category"),
        ([np.datetime64("2020-01-01T00:00:00", "ns"), datetime.date(2020, 1, 1)], "date"),
        (["2020-01-01", 3], "category"),
        ([None, "NaN", ""], "category"),
        (["inf"], "category"),
    ],
)
def test_kinds_are_told_from_the_cells(cells, kind):
    [column] = TableRows().fitted([[{"a": cell} for cell in cells]]).columns
    assert column.kind == kind


def test_kinds_can_be_chosen():
    table = "zip,id,day\n01,1,2020-01-01\n2,2,2020-01-02\n"
    encoder = TableRows(kinds={"zip": "category", "id": "ignore", "day": "category"}).fitted([table])
    assert [(c.name, c.values) for c in encoder.columns] == [
        ("zip", ("01", "2")),
        ("day", ("2020-01-01", "2020-01-02")),
    ]
    with pytest.raises(HetgraphError, match="column 'day' is to hold a number in every cell, and does not in training"):
        TableRows(kinds={"day": "number"}).fitted([table])
    with pytest.raises(HetgraphError, match="a kind is one of number, category, date, ignore, got 'text'"):
        TableRows(kinds={"day": "text"})


def test_many_categories_are_hashed_and_equal_ones_are_equal():
    table = [{"a": f"word{i % 70}"} for i in range(140)]
    encoder = TableRows(max_values=64, buckets=8).fitted([table])
    assert (encoder.columns[0].values, encoder.dim) == (None, 9)
    [nodes] = encoder([table])
    assert torch.equal(nodes["x"][:70], nodes["x"][70:])
    assert torch.equal(nodes["x"][0, 1:], torch.tensor(hashed_vector("word0", 8)))
    assert len(TableRows(max_values=70).fitted([table]).columns[0].values) == 70
    assert TableRows().fitted([[{"a": "x" * 300}]]).columns[0].values is None


def test_a_column_of_equal_numbers_is_zero_and_absurd_ones_are_cut_off():
    encoder = TableRows().fitted([[{"a": 5}, {"a": 5}]])
    assert encoder([[{"a": 5}, {"a": 1e300}, {"a": -1e300}]])[0]["x"][:, 1].tolist() == [0, 20, -20]


@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        ("old", "row 2, column 'age': expected a finite number, got 'old'"),
        (float("inf"), "row 2, column 'age': expected a finite number, got inf"),
        (10**400, "row 2, column 'age': expected a finite number, got 1000"),
        (True, "row 2, column 'age': expected a finite number, got True"),
        (datetime.date(2020, 1, 1), "row 2, column 'age': expected a finite number, got datetime.date"),
        ([1], "row 2, column 'age': expected a text, a number, a date or nothing, got list"),
        (b"1", "row 2, column 'age': expected a text, a number, a date or nothing, got bytes"),
        (1j, "row 2, column 'age': expected a text, a number, a date or nothing, got complex"),
    ],
)
def test_a_cell_of_another_kind_is_named_with_row_and_column(rows, cell, fault):
    with pytest.raises(MediaError, match=f"^sample 'a': {fault}"):
        rows([[{"age": 1}, {"age": cell}]], names=["sample 'a'"])


def test_numbers_too_large_for_a_variance_are_refused_in_training():
    with pytest.raises(HetgraphError, match="column 'a': its numbers are too large"):
        TableRows().fitted([[{"a": 1e308}, {"a": -1e308}, {"a": 1e308}]])


def test_a_large_table_is_cut_and_counted(tmp_path, rows):
    table = "age\n" + "1\n" * 10
    for encoder in (TableRows(columns=rows.columns, max_rows=4), TableCells(columns=rows.columns, max_rows=4)):
        nodes = encoder([table, [{"age": 1}] * 10, "age\n" + "1\n" * 4])
        assert [len(n["x"]) for n in nodes] == [4 * len(n["x"]) // 4 for n in nodes]
        assert len(nodes[0]["x"]) == 4 * (4 if "column" in nodes[0] else 1)
        assert encoder.truncated == 2


@needs_pyarrow
def test_only_the_rows_that_are_wanted_are_read_of_a_parquet_file(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": np.arange(100_000), "b": ["x"] * 100_000}), path, row_group_size=1000)
    table = read_table(Item(path, "it"), path, 1500)
    assert (len(table.rows), table.cut) == (1500, True)
    assert table.rows[-1] == [1499, "x"]


def test_the_digest_follows_the_content(tmp_path, rows):
    path = tmp_path / "a.csv"
    path.write_text(CSV)
    assert rows.digest(Item(path, "it")) == rows.digest(Item(CSV.encode(), "it"))
    digests = [rows.digest(Item(value, "it")) for value in (ROWS, ROWS[::-1], ROWS[:2], ROWS[0], CSV)]
    assert len(set(digests)) == 5
    assert rows.digest(Item(list(map(dict, ROWS)), "it")) == digests[0]


def test_a_data_frame_in_place_of_a_list_is_refused(rows):
    pandas = pytest.importorskip("pandas")
    with pytest.raises(HetgraphError, match="TableRows takes a list of items, got a single DataFrame"):
        rows(pandas.DataFrame(ROWS))


def test_anything_that_gives_rows_like_a_data_frame_is_one(rows):
    class Frame:
        columns = ("age", "sex")

        def __len__(self):
            return 2

        def itertuples(self, index, name):
            assert (index, name) == (False, None)
            return iter([(40, "f"), (np.nan, "m")])

    class Polars(Frame):
        itertuples = property()

        def iter_rows(self):
            return iter([(40, "f"), (None, "m")])

    expected = rows([[{"age": 40, "sex": "f"}, {"age": None, "sex": "m"}]])[0]["x"]
    assert torch.equal(rows([Frame()])[0]["x"], expected)
    assert torch.equal(rows([Polars()])[0]["x"], expected)


@pytest.mark.parametrize(
    "columns",
    [
        [],
        "age",
        [3],
        [{}],
        [{"name": "a", "kind": "text"}],
        [{"name": 3, "kind": "date"}],
        [{"name": "a", "kind": "number", "std": 0.0}],
        [{"name": "a", "kind": "number", "mean": float("nan")}],
        [{"name": "a", "kind": "number", "mean": "1"}],
        [{"name": "a", "kind": "category"}],
        [{"name": "a", "kind": "category", "values": [1]}],
        [{"name": "a", "kind": "date", "more": 1}],
        [Column("a", "date"), Column("a", "number")],
    ],
)
def test_damaged_columns_are_refused(columns):
    for make in (TableRows, TableCells):
        with pytest.raises(HetgraphError, match="column"):
            make(columns=columns)


def test_named_tuples_are_no_rows(rows):
    with pytest.raises(MediaError, match=r"item 0: expected a table .*, got list"):
        rows([[namedtuple("Row", "age")(3)]])
