# Everything runs from a fresh clone with nothing but Python 3.11 and make.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS := offline,parquet,csd,video,ray,dgl,link,detection,sources,test,dev
# one thread a test process: two of them share the machine without waiting for each other
ONE_THREAD := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

BENCHMARKS := message_passing sparse_attention graph_building training_step memory scaling import_time encoding knowledge_graph

.PHONY: env demo test lint format bench clean

env: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	touch $@

demo: env
	$(BIN)/hetgraph demo --output outputs/demo

test: env
	$(ONE_THREAD) $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

# kg/ and tasks/ are parts of the package in other places; the type checker wants to see them in theirs
lint: env
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	rm -rf build/typed && mkdir -p build/typed
	cp -r hetgraph build/typed/hetgraph && cp -r kg tasks build/typed/hetgraph/
	cd build/typed && $(abspath $(BIN))/mypy --config-file ../../pyproject.toml

format: env
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# one after the other, so that no two measure at the same time; the report fills the table of the README
bench: env
	for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name --json docs/results/$$name.json || exit 1; done
	$(BIN)/python -m benchmarks.report --results docs/results --images docs/images --into README.md

clean:
	rm -rf $(VENV) build outputs .pytest_cache .mypy_cache .ruff_cache
