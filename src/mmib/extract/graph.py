"""Merge extractions from many posts into a knowledge graph of entities, relations, and the posts that state them.

Also the command `mmib graph`, which does so for files that `mmib extract` has written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import networkx

from mmib.base.argument_parser import CommandParser
from mmib.base.files import check_output, write_text
from mmib.base.wording import counted
from mmib.schema import ConfigError, DataError

# The type of an entity that was given without one; no real type is written like this.
UNTYPED = "*"
ENTITY, RELATION, POST = "urn:mmib:entity:", "urn:mmib:relation:", "urn:mmib:post:"
TERMS = "urn:mmib:term:"
# Characters that XML 1.0 does not allow.
UNWRITABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def check_format(path: Path) -> None:
    """Refuse a file name whose extension is not a graph format, or is one whose package is not installed.

    Raises:
        ConfigError: the extension is unknown, and the message lists the formats; or the package is missing.
    """
    if path.suffix not in WRITERS:
        raise ConfigError(f"a graph is written to a file that ends in {', '.join(WRITERS)}, not to {path.name}")
    if WRITERS[path.suffix] is _turtle and find_spec("rdflib") is None:
        raise ConfigError(f"{path.name} needs the package rdflib: pip install 'mmib[extract]', or write another format")


def merged(records: Iterable[dict[str, Any]]) -> networkx.MultiDiGraph:
    """Build a graph: a node per name and type, an edge per relation between two nodes, both with their source posts.

    Names that differ only in case and white space are equal. An edge's confidence is the highest of its posts.

    Args:
        records: extractions with their `id`, or an `error` for posts without one.
    """
    graph = networkx.MultiDiGraph()
    for record in records:
        if "error" in record:
            continue
        post = str(record["id"])
        nodes = [_add_entity(graph, entity, post) for entity in record["entities"]]
        for relation in record["relations"]:
            head, tail, label = nodes[relation["head"]], nodes[relation["tail"]], relation["label"]
            if not graph.has_edge(head, tail, label):
                graph.add_edge(head, tail, label, label=label, confidence=0.0, posts={})
            edge = graph.edges[head, tail, label]
            edge["confidence"] = max(edge["confidence"], relation["confidence"])
            edge["posts"][post] = None
    for *_, attributes in (*graph.nodes(data=True), *graph.edges(data=True)):
        attributes["posts"] = list(attributes["posts"])
    return graph


def graph_of(results: Sequence[Path]) -> networkx.MultiDiGraph:
    """Merge the extractions in output of `mmib extract`, see `merged`.

    Raises:
        DataError: a file cannot be read, or a line of it is not an extraction.
    """
    from mmib.datamodules.convert.lines import objects  # noqa: PLC0415 - help needs no numpy

    place = ""

    def records() -> Iterator[dict[str, Any]]:
        nonlocal place
        for path in results:
            for line, record in objects(path):
                place = f"{path}, {line}"
                yield record

    try:
        return merged(records())
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise DataError(f"{place} was not written by mmib extract: name a file that it has written") from error


def write_graph(graph: networkx.MultiDiGraph, path: Path) -> None:
    """Write node-link JSON, GraphML, or Turtle, by the file extension."""
    write_text(path, WRITERS[path.suffix](graph))


def _add_entity(graph: networkx.MultiDiGraph, entity: dict[str, Any], post: str) -> str:
    name = " ".join(entity["text"].split())
    node = f"{quote(entity['type'], safe='') if entity['type'] else UNTYPED}:{name.casefold()}"
    if node not in graph:
        graph.add_node(node, name=name, type=entity["type"] or "", posts={})
    graph.nodes[node]["posts"][post] = None  # an ordered set
    return node


def _json(graph: networkx.MultiDiGraph) -> str:
    return json.dumps(networkx.node_link_data(graph, edges="edges"), ensure_ascii=False, indent=1) + "\n"


def _graphml(graph: networkx.MultiDiGraph) -> str:
    """GraphML has no lists: posts are JSON in a string."""
    flat = networkx.MultiDiGraph()
    for node, attributes in graph.nodes(data=True):
        flat.add_node(_writable(node), **_flat(attributes))
    for head, tail, label, attributes in graph.edges(keys=True, data=True):
        flat.add_edge(_writable(head), _writable(tail), label, **_flat(attributes))
    return "\n".join(networkx.generate_graphml(flat)) + "\n"


def _flat(attributes: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _writable(json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value)
        for name, value in attributes.items()
    }


def _writable(value: Any) -> Any:
    return UNWRITABLE.sub("\ufffd", value) if isinstance(value, str) else value


def _turtle(graph: networkx.MultiDiGraph) -> str:
    """Write each relation as a triple, and as a reified statement with its posts and confidence."""
    import rdflib  # noqa: PLC0415 - the other formats do without

    terms = rdflib.Namespace(TERMS)
    rdf = rdflib.Graph()
    rdf.bind("mmib", terms)
    names = {node: rdflib.URIRef(ENTITY + quote(node, safe="")) for node in graph}
    for node, attributes in graph.nodes(data=True):
        rdf.add((names[node], rdflib.RDFS.label, rdflib.Literal(attributes["name"])))
        if attributes["type"]:
            rdf.add((names[node], rdflib.RDF.type, terms[quote(attributes["type"], safe="")]))
        for post in attributes["posts"]:
            rdf.add((names[node], terms.mentionedIn, rdflib.URIRef(POST + quote(post, safe=""))))
    for head, tail, label, attributes in graph.edges(keys=True, data=True):
        relation, statement = rdflib.URIRef(RELATION + quote(label.strip("/"), safe="/")), rdflib.BNode()
        rdf.add((names[head], relation, names[tail]))
        rdf.add((statement, rdflib.RDF.type, rdflib.RDF.Statement))
        rdf.add((statement, rdflib.RDF.subject, names[head]))
        rdf.add((statement, rdflib.RDF.predicate, relation))
        rdf.add((statement, rdflib.RDF.object, names[tail]))
        rdf.add((statement, terms.confidence, rdflib.Literal(attributes["confidence"])))
        for post in attributes["posts"]:
            rdf.add((statement, terms.saidIn, rdflib.URIRef(POST + quote(post, safe=""))))
    return str(rdf.serialize(format="turtle"))


WRITERS = {".json": _json, ".graphml": _graphml, ".ttl": _turtle}


def run(arguments: list[str]) -> int:
    """Merge the triples of finished extractions into a graph.

    Raises:
        ConfigError: the graph has an unknown format or one whose package is missing, or is one of the inputs.
        DataError: an input cannot be read, or was not written by `mmib extract`.
    """
    parser = CommandParser(
        prog="mmib graph",
        description="Merge the triples in output of mmib extract into a graph, as its option --graph does. Posts of "
        "several files with the same id count as one.",
    )
    add = parser.add_argument
    add("results", nargs="+", type=Path, metavar="RESULTS", help="output of mmib extract, whole or in shards")
    add("-o", "--output", type=Path, required=True, metavar="FILE", help="graph to write: .json, .graphml or .ttl")
    chosen = parser.parse_args(arguments)
    check_format(chosen.output)
    check_output(chosen.output, chosen.results)
    graph = graph_of(chosen.results)
    write_graph(graph, chosen.output)
    print(f"{chosen.output}: {counted(len(graph), 'entities')}, {counted(graph.number_of_edges(), 'relations')}")  # noqa: T201
    return 0
