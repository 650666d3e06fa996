"""``model_repository/README.md``: what each model takes and gives, and how to call it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from samgate.repository.models import QUEUE, max_batch_size, model_name
from samgate.repository.profiles import PROFILES, Profile
from samgate.variants.detectors import DetectorSpec, detector_graph
from samgate.variants.graphs import GraphName, GraphSpec, TensorSpec, graph_specs
from samgate.variants.spec import NetworkSpec, VariantSpec

_HEAD = """\
# Model repository

Models for Triton Inference Server, one a graph, called `VARIANT_GRAPH`. Everything here is generated from the variants'
specs by `samgate repository build`; `samgate repository build --check` fails when it differs. Compiled graphs are not
checked in: they belong beside the configurations, in each model's folder `1`.

```bash
samgate triton up                                                          # a real Triton here, no GPU, no container
samgate repository build --profile openvino --models --output /srv/models   # a complete repository for another server
tritonserver --model-repository=/srv/models/openvino --disable-auto-complete-config
```

`--disable-auto-complete-config` keeps Triton from adding what a configuration leaves out on purpose.

## Profiles
"""

_BATCHING = """\
## Batches and queues

Batches are formed by the gateway: a request runs as it comes, in its turn, and Triton merges none. The queue that is
bounded and knows deadlines is the gateway's, so the configurations checked in go without Triton's batcher, and don't
heed a request's `timeout`; what a client cancels before it runs does not run. `samgate repository build` writes others:

- `--batching bounded`, for servers that others call, too: after {size} waiting requests further ones are refused with
  UNAVAILABLE, as is one that has waited for longer than its `timeout` (microseconds; {timeout} s if it names none). The
  price, seen with Triton 2.51 on a busy machine: up to two calls in a hundred stand still for 500 ms, when its batcher
  misses that an instance has become free.
- `--batching dynamic`, for several gateways that share a Triton: it merges requests of one shape that wait.
"""

_CALL = """\
## Call them

```python
import numpy as np
import tritonclient.grpc as triton

client = triton.InferenceServerClient("127.0.0.1:8001")
image = np.zeros((1, {size}, {size}, 3), np.uint8)  # RGB, resized to fit and padded right and bottom
valid = np.array([[768, {size}]], np.int32)  # height and width of the image inside its square
inputs = [triton.InferInput("image", image.shape, "UINT8"), triton.InferInput("valid", valid.shape, "INT32")]
for tensor, array in zip(inputs, (image, valid)):
    tensor.set_data_from_numpy(array)
embedding = client.infer("{name}", inputs).as_numpy("image_embedding")
```

What the values mean: `service/samgate/variants/nets/sam.py`. A tensor may have size 0 (the points of a
prompt that is only a mask).
"""

_ROLES: dict[GraphName, str] = {
    "encoder": "images to embeddings",
    "decoder": "prompts on embeddings to mask logits",
    "masked_decoder": "the same for prompts with an earlier mask",
    "scores": "for SegEvery: what masks are worth, and coarsely what they are; `decoder` then for those of use",
    "image_features": "parts of images to vectors, for prompts in words",
    "text_features": "tokens of texts to vectors",
}


def readme(specs: Sequence[NetworkSpec], detectors: Sequence[DetectorSpec] = ()) -> str:
    """The whole file, for ``specs`` and ``detectors``, whose sizes are known."""
    batching = _BATCHING.format(size=QUEUE.max_queue_size, timeout=QUEUE.default_timeout_microseconds // 1_000_000)
    parts = [_HEAD, _profiles(), batching]
    parts += [part for spec in specs for part in _variant(spec)]
    if detectors:
        parts += _detectors(detectors)
    for spec in [spec for spec in specs if isinstance(spec, VariantSpec)][:1]:
        parts.append(_CALL.format(size=spec.input_size, name=model_name(spec.name, "encoder")))
    return "\n".join(parts)


def _profiles() -> str:
    rows = (
        (f"`{profile.name}`", profile.summary, f"`{profile.model_file}`", _instances(profile))
        for profile in PROFILES.values()
    )
    return _table(("profile", "runs", "file to add", "instances"), rows)


def _instances(profile: Profile) -> str:
    several = (f"{count} of `{graph}`" for graph, count in profile.instances.items())
    return ", ".join((*several, "1 of others")) if profile.instances else "1"


def _variant(spec: NetworkSpec) -> Iterator[str]:
    graphs = graph_specs(spec)
    axes = "N images, I images × P prompts × K points" if isinstance(spec, VariantSpec) else "N images or texts"
    yield f"## {spec.title}\n\nAxes: {axes}; the first of them is the batch axis where there is one.\n"
    rows = (
        (
            f"`{model_name(spec.name, name)}`",
            _ROLES[name],
            _tensors(graphs[name].inputs),
            _tensors(graphs[name].outputs),
            ", ".join(f"`{profile.name}`" for profile in PROFILES.values() if name in profile.graphs),
        )
        for name in _ROLES
        if name in graphs
    )
    yield _table(("model", "", "inputs", "outputs", "profiles"), rows)
    yield "Shapes that the models are tuned for, smallest / typical / largest (the TensorRT plans take no others):\n"
    yield _table(
        ("model", "largest batch", "shapes"), (_shapes(spec, graphs[name]) for name in _ROLES if name in graphs)
    )


def _detectors(specs: Sequence[DetectorSpec]) -> Iterator[str]:
    yield (
        "## Detectors\n\nOf an image in the letterbox of its detector (`service/samgate/imaging/letterbox.py`): boxes "
        "(x0, y0, x1, y1) in\nits pixels, and the score of each. In f32 on CPUs. Licences: `docs/detectors.md`.\n"
    )
    graphs = ((spec, detector_graph(spec)) for spec in specs)
    rows = (
        (
            f"`{model_name(spec.name, graph.name)}`",
            f"{spec.title} ({spec.licence})",
            _tensors(graph.inputs),
            _tensors(graph.outputs),
        )
        for spec, graph in graphs
    )
    yield _table(("model", "", "inputs", "outputs"), rows)


def _shapes(spec: NetworkSpec, graph: GraphSpec) -> tuple[str, str, str]:
    ranges = (
        ", ".join(f"{axis} {size.smallest}/{size.typical}/{size.largest}" for axis, size in shapes.items())
        for shapes in graph.profiles
    )
    largest = max_batch_size(graph, PROFILES["tensorrt"])
    return f"`{model_name(spec.name, graph.name)}`", str(largest or "–"), "; or ".join(ranges)


def _tensors(tensors: Iterable[TensorSpec]) -> str:
    return "<br>".join(f"`{one.name}` {one.dtype} [{', '.join(map(str, one.shape))}]" for one in tensors)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
