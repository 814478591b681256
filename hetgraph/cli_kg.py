"""``hetgraph kg load | stats | query | link | subgraph``: knowledge graphs on the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from .errors import HetgraphError

app = typer.Typer(
    help="Knowledge graphs: load, look at, ask, link texts, and cut out what lies around some entities.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
console = Console(highlight=False, emoji=False)

Graph = Annotated[Path, typer.Argument(help="A saved graph (.npz), or RDF or a table, gzipped or not.")]
Format = Annotated[str | None, typer.Option(help="nt, nq, ttl, trig, rdf, jsonld, csv or tsv. Default: by the name.")]
Base = Annotated[str | None, typer.Option(help="The IRI that relative ones are resolved against.")]
Languages = Annotated[list[str] | None, typer.Option("--language", help="Of labels, the preferred first; repeat.")]


class Method(StrEnum):
    ppr = "ppr"
    khop = "khop"
    path = "path"
    steiner = "steiner"


@app.command()
def load(
    sources: Annotated[list[Path], typer.Argument(help="RDF files or tables of head, relation and tail.")],
    output: Annotated[Path, typer.Option(help="The .npz file to write.")],
    format: Format = None,
    base: Base = None,
    skip_errors: Annotated[
        bool, typer.Option("--skip-errors", help="Leave malformed lines of N-Triples, N-Quads and tables out.")
    ] = False,
    graphs: Annotated[
        list[str] | None, typer.Option(help="A named graph to take; repeat. `default`: only statements in none.")
    ] = None,
    languages: Annotated[
        list[str] | None, typer.Option("--language", help="Keep literals in this language; repeat. Default: all.")
    ] = None,
) -> None:
    """Read files once and save the graph in a form that opens at once."""
    from .kg import load_kg

    if output.suffix != ".npz":
        raise HetgraphError(f"--output is a .npz file, got {output}")
    chosen: Any = "merge" if not graphs else "default" if graphs == ["default"] else graphs
    graph = load_kg(
        sources,
        format=format,
        base=base,
        on_error="skip" if skip_errors else "raise",
        named_graphs=chosen,
        languages=languages,
    )
    graph.save(output)
    _print_counts(graph, str(output))


@app.command()
def stats(
    graph: Graph,
    format: Format = None,
    base: Base = None,
    top: Annotated[int, typer.Option(min=1, help="Relations, hubs and languages to list.")] = 10,
) -> None:
    """Sizes, relations, degrees, the entities that most is connected to, languages."""
    import numpy as np

    found = _opened(graph, format, base)
    _print_counts(found, str(graph))
    relations = Table(title="relations")
    relations.add_column("relation", overflow="fold")
    relations.add_column("arcs", justify="right")
    counts = found.relation_counts()
    for name, count in list(counts.items())[:top]:
        relations.add_row(_plain(name), f"{count:,}")
    if len(counts) > top:
        relations.add_row(f"{len(counts) - top} others", f"{sum(list(counts.values())[top:]):,}")
    console.print(relations)
    if not found.num_entities:
        return
    degree = found.degree()
    spread = ", ".join(f"{int(q)} %: {int(np.percentile(degree, q)):,}" for q in (10, 50, 90, 99, 100))
    console.print(f"arcs of an entity, percentiles   {spread}")
    hubs = Table(title="largest entities")
    for column in ("entity", "label"):
        hubs.add_column(column, overflow="fold")
    hubs.add_column("arcs", justify="right")
    for entity in np.argsort(-degree, kind="stable")[:top].tolist():
        hubs.add_row(_plain(found.entities[entity]), _plain(found.label(entity)), f"{int(degree[entity]):,}")
    console.print(hubs)
    languages = sorted(found.languages().items(), key=lambda item: (-item[1], item[0]))
    if languages:
        shown = ", ".join(f"{name or 'none'} {count:,}" for name, count in languages[:top])
        more = f" and {len(languages) - top} others" if len(languages) > top else ""
        console.print(f"literals by language   {shown}{more}", markup=False)


@app.command()
def query(
    source: Annotated[str, typer.Argument(help="RDF files, a folder of a store, or the address of an endpoint.")],
    sparql: Annotated[str, typer.Argument(help="The query, or @FILE.")],
    bind: Annotated[
        list[str] | None, typer.Option(help="VARIABLE=IRI: the value of a variable; repeat.", metavar="VAR=IRI")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds.")] = 30.0,
    max_rows: Annotated[int, typer.Option(min=1, help="Rows to show at most.")] = 100,
    format: Format = None,
    base: Base = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows here.")] = None,
) -> None:
    """Ask with SPARQL. Only an address that you give here is ever asked."""
    from .kg import SparqlEndpoint, TripleStore

    text = _read(Path(sparql[1:])) if sparql.startswith("@") else sparql
    bindings = _bindings(bind or [])
    if source.startswith(("http://", "https://")):
        answer = SparqlEndpoint(source, timeout=timeout).query(text, bindings=bindings, max_rows=max_rows)
    else:
        path = Path(source)
        store = TripleStore(path, read_only=True) if path.is_dir() else TripleStore()
        if not path.is_dir():
            store.load(path, format=format, base=base)
        answer = store.query(text, bindings=bindings, timeout=timeout, max_rows=max_rows)
    _print_answer(answer, max_rows)
    if json_file:
        _write_json(json_file, _as_json(answer))


@app.command()
def link(
    graph: Graph,
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT...", help="Texts to link.")] = None,
    file: Annotated[Path | None, typer.Option(help="A text file; each line is a text.")] = None,
    languages: Annotated[
        list[str] | None, typer.Option("--language", help="Look for labels in this language; repeat. Default: all.")
    ] = None,
    candidates: Annotated[int, typer.Option(min=1, help="Entities of one mention to show at most.")] = 3,
    threshold: Annotated[float, typer.Option(min=0.0, max=1.0, help="What scores less is no link.")] = 0.0,
    prior: Annotated[bool, typer.Option("--prior", help="Entities with many arcs are likelier to be meant.")] = False,
    no_accents: Annotated[bool, typer.Option("--no-accents", help="Accents make no difference.")] = False,
    typos: Annotated[bool, typer.Option("--typos", help="Also find misspelled names; needs the extra `link`.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the links here.")] = None,
    format: Format = None,
    base: Base = None,
) -> None:
    """Find the names of entities in texts."""
    from .kg import AliasLinker, ChainLinker, TypoLinker

    lines = [*(texts or []), *(_read(file).splitlines() if file else [])]
    if not lines:
        raise HetgraphError("nothing to link: give texts or --file")
    found = _opened(graph, format, base)
    options: dict[str, Any] = {"threshold": threshold, "most": candidates}
    likely = found.degree() + 1 if prior else None
    linker: Any = AliasLinker(found, languages=languages, prior=likely, accents=not no_accents, **options)
    if typos:
        linker = ChainLinker(linker, TypoLinker(linker, **options))
    preferred = languages or ["", "en"]
    table = Table()
    for column in ("text", "span", "mention", "entity", "label"):
        table.add_column(column, overflow="fold")
    table.add_column("score", justify="right")
    table.add_column("method")
    rows = []
    for number, text in enumerate(lines):
        for one in linker.link(text):
            start, end = one.span
            said, name = text[start:end], found.entities[one.entity]
            label = found.label(one.entity, preferred)
            cells = (str(number + 1), f"{start}-{end}", said, name, label, f"{one.score:.3f}", one.method)
            table.add_row(*map(_plain, cells))
            rows.append(
                {"text": number, "start": start, "end": end, "mention": said, "entity": name, "label": label}
                | {"score": one.score, "method": one.method}
            )
    console.print(table)
    mentions = len({(row["text"], row["start"]) for row in rows})
    console.print(f"{mentions} mentions, {len(rows)} links in {len(lines)} texts")
    if json_file:
        _write_json(json_file, {"texts": lines, "links": rows})


@app.command()
def subgraph(
    graph: Graph,
    seeds: Annotated[list[str], typer.Option("--seed", help="An entity by name or by label; repeat.")],
    method: Annotated[Method, typer.Option(help="How to choose what lies around the seeds.")] = Method.ppr,
    max_nodes: Annotated[int, typer.Option(min=1)] = 50,
    hops: Annotated[int, typer.Option(min=0, help="Of khop; of path: arcs of a path at most.")] = 2,
    hub: Annotated[int, typer.Option(min=1, help="Arcs of one entity to follow in one direction.")] = 100,
    languages: Languages = None,
    picture: Annotated[Path | None, typer.Option(help="Draw it into this .png.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write nodes and arcs here.")] = None,
    format: Format = None,
    base: Base = None,
) -> None:
    """Cut out the entities around some seeds; print, draw or write them."""
    from .kg import KHopRetriever, PathRetriever, PPRRetriever, SteinerRetriever

    found = _opened(graph, format, base)
    numbers = [number for seed in seeds for number in _entities(found, seed)]
    common: dict[str, Any] = {"max_nodes": max_nodes, "hub": hub}
    makers = {
        Method.ppr: lambda: PPRRetriever(**common),
        Method.khop: lambda: KHopRetriever(hops=hops, **common),
        Method.path: lambda: PathRetriever(length=max(1, hops), **common),
        Method.steiner: lambda: SteinerRetriever(**common),
    }
    cut = makers[method]()(found, numbers)
    preferred = languages or ["", "en"]
    table = Table(title=f"{len(cut)} entities, {len(cut.edge_type)} arcs")
    for column in ("entity", "label"):
        table.add_column(column, overflow="fold")
    table.add_column("score", justify="right")
    table.add_column("")
    own = set(cut.seeds.tolist())
    for place, (node, score) in enumerate(zip(cut.nodes.tolist(), cut.score.tolist(), strict=True)):
        label = found.label(node, preferred)
        table.add_row(_plain(found.entities[node]), _plain(label), f"{score:.4f}", "seed" if place in own else "")
    console.print(table)
    if picture:
        from .kg.drawing import draw_subgraph

        title = f"{', '.join(found.label(n, preferred) for n in numbers[:4])}: {method.value}"
        draw_subgraph(found, cut, picture, title=title, languages=preferred)
        console.print(f"picture in {picture}", markup=False)
    if json_file:
        nodes = [
            {"entity": found.entities[n], "label": found.label(n, preferred), "score": s, "seed": i in own}
            for i, (n, s) in enumerate(zip(cut.nodes.tolist(), cut.score.tolist(), strict=True))
        ]
        _write_json(json_file, {"nodes": nodes, "arcs": cut.triples(found), "provenance": dict(cut.provenance)})


def _opened(path: Path, format: str | None, base: str | None) -> Any:
    from .kg import load_kg

    return load_kg(path, format=format, base=base)


def _entities(graph: Any, seed: str) -> list[int]:
    """An entity by its name, or all that have it as a label.

    Raises:
        HetgraphError: there is none.
    """
    number = graph.entities.find(seed)
    if number >= 0:
        return [number]
    wanted = seed.casefold()
    found = [entity for entity, labels in graph.labels.items() if any(x.casefold() == wanted for x in labels)]
    # tables have no labels, but their names often end in one
    found = found or [i for i, name in enumerate(graph.entities) if name.rsplit("/", 1)[-1].casefold() == wanted]
    if not found:
        raise HetgraphError(f"--seed {seed!r}: no entity has this name or label")
    return found


def _bindings(pairs: Sequence[str]) -> dict[str, str]:
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise HetgraphError(f"--bind takes VARIABLE=IRI, got {wrong[0]!r}")
    return dict(pair.split("=", 1) for pair in pairs)


def _print_counts(graph: Any, name: str) -> None:
    table = Table(title=_plain(name))
    table.add_column("")
    table.add_column("", justify="right")
    report = graph.report
    rows = {
        "entities": graph.num_entities,
        "with a label": len(graph.labels),
        "relations": graph.num_relations,
        "arcs": len(graph),
        "literals": len(graph.literals.texts),
        "statements read": report.statements,
        "left out, malformed": report.skipped,
        "left out, other languages": report.other_languages,
    }
    for what, count in rows.items():
        if count or not what.startswith("left out"):
            table.add_row(what, f"{count:,}")
    console.print(table)
    for line in report.first:
        console.print(f"left out: {line}", markup=False, soft_wrap=True)


def _print_answer(answer: Any, max_rows: int) -> None:
    from .kg import Table as Rows

    if isinstance(answer, bool):
        console.print("yes" if answer else "no")
        return
    rows = answer.rows if isinstance(answer, Rows) else [(t.subject, t.predicate, t.object) for t in answer]
    columns = answer.variables if isinstance(answer, Rows) else ("subject", "predicate", "object")
    table = Table()
    for column in columns:
        table.add_column(_plain(column), overflow="fold")
    for row in rows:
        table.add_row(*("" if term is None else _plain(str(term)) for term in row))
    console.print(table)
    cut = isinstance(answer, Rows) and answer.truncated
    console.print(f"the first {max_rows} rows; --max-rows shows more" if cut else f"{len(rows)} rows")


def _as_json(answer: Any) -> Any:
    from .kg import Table as Rows

    if isinstance(answer, bool):
        return {"answer": answer}
    if isinstance(answer, Rows):
        rows = [{name: None if t is None else str(t) for name, t in row.items()} for row in answer]
        return {"variables": list(answer.variables), "rows": rows, "truncated": answer.truncated}
    return {"triples": [[str(t.subject), str(t.predicate), str(t.object)] for t in answer]}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HetgraphError(f"{path}: {error}") from error


def _write_json(path: Path, data: Any) -> None:
    from .files import write_atomically

    write_atomically(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
