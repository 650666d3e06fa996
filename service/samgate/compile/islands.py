"""Which nodes of a graph stay in f32."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from onnx import GraphProto, NodeProto

from samgate.variants.spec import Island

_MOVERS = {"Expand", "Pad", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
"""Operators that only bring the values of their first input into another order."""


def islands_of(graph: GraphProto, islands: Sequence[Island]) -> dict[str, str]:
    """The name of its island, of the first where there are several, for each node (by name) that belongs to one."""
    made_by = {name: node for node in graph.node for name in node.output}
    found: dict[str, str] = {}
    for island in islands:
        members = [node for node in graph.node if _matches(node, island)]
        for node in _with_origins(members, made_by) if island.origins else members:
            found.setdefault(node.name, island.name)
    return found


def movers_in_f32(graph: GraphProto, floats: Collection[str], in_f32: Collection[str]) -> set[str]:
    """Names of nodes that move values from f32 to f32 alone: in low arithmetic they would cost two casts and digits.

    Args:
        floats: names of the f32 tensors.
        in_f32: names of the nodes that calculate in f32.
    """
    made_by = {name: node for node in graph.node for name in node.output}
    read_by: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            read_by.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}
    kept = set(in_f32)
    # From the end, so that what a mover's result is wanted in is known before the mover's turn.
    for node in reversed(graph.node):
        result = node.output[0]
        readers = read_by.get(result, [])
        wanted = all(reader.name in kept for reader in readers) and (readers or result in outputs)
        if node.op_type in _MOVERS and result in floats and wanted and _origin(node, made_by).name in in_f32:
            kept.add(node.name)
    return kept - set(in_f32)


def _matches(node: NodeProto, island: Island) -> bool:
    return node.op_type in island.operators and re.search(island.names, node.name) is not None


def _with_origins(nodes: Sequence[NodeProto], made_by: Mapping[str, NodeProto]) -> list[NodeProto]:
    found = {node.name: node for node in nodes}
    waiting = list(nodes)
    while waiting:
        for name in waiting.pop().input:
            node = made_by.get(name)
            if node is not None and node.name not in found:
                found[node.name] = node
                waiting.append(node)
    return list(found.values())


def _origin(node: NodeProto, made_by: Mapping[str, NodeProto]) -> NodeProto:
    """What made the values that ``node`` moves: the first node on the way back that is no mover."""
    while node.op_type in _MOVERS and node.input[0] in made_by:
        node = made_by[node.input[0]]
    return node
