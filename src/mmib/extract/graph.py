"""Merge extractions from many posts into a knowledge graph of entities, relations, and the posts that state them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import networkx

from mmib.base.files import write_text
from mmib.schema import ConfigError

# The type of an entity that was given without one; no real type is written like this.
UNTYPED = "*"
ENTITY, RELATION, POST = "urn:mmib:entity:", "urn:mmib:relation:", "urn:mmib:post:"
TERMS = "urn:mmib:term:"
# Characters that XML 1.0 does not allow.
UNWRITABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def check_format(path: Path) -> None:
    """Refuse a file name whose extension is not a graph format.

    Raises:
        ConfigError: the extension is unknown; the message lists the formats.
    """
    if path.suffix not in WRITERS:
        raise ConfigError(f"a graph is written to a file that ends in {', '.join(WRITERS)}, not to {path.name}")


def merged(records: Iterable[dict[str, Any]]) -> networkx.MultiDiGraph:
    """Build a graph: a node per name and type, an edge per relation between two nodes, both with their source posts.

    Names that differ only in case and white space are equal. An edge's confidence is the highest of its posts.
    """
    graph = networkx.MultiDiGraph()
    for record in records:
        post = str(record["id"])
        nodes = [_add_entity(graph, entity, post) for entity in record.get("entities", ())]
        for relation in record.get("relations", ()):
            head, tail, label = nodes[relation["head"]], nodes[relation["tail"]], relation["label"]
            if not graph.has_edge(head, tail, label):
                graph.add_edge(head, tail, label, label=label, confidence=0.0, posts=[])
            edge = graph.edges[head, tail, label]
            edge["confidence"] = max(edge["confidence"], relation["confidence"])
            _add_post(edge, post)
    return graph


def write_graph(graph: networkx.MultiDiGraph, path: Path) -> None:
    """Write node-link JSON, GraphML, or Turtle, by the file extension."""
    write_text(path, WRITERS[path.suffix](graph))


def _add_entity(graph: networkx.MultiDiGraph, entity: dict[str, Any], post: str) -> str:
    name = " ".join(entity["text"].split())
    node = f"{quote(entity['type'], safe='') if entity['type'] else UNTYPED}:{name.casefold()}"
    if node not in graph:
        graph.add_node(node, name=name, type=entity["type"] or "", posts=[])
    _add_post(graph.nodes[node], post)
    return node


def _add_post(attributes: dict[str, Any], post: str) -> None:
    if post not in attributes["posts"]:
        attributes["posts"].append(post)


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
