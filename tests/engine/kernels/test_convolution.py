"""Convolutions, dense blocks and whole networks by Triton against PyTorch's own, in both directions."""

import pytest
import torch
import torch.nn.functional as F
from maskflownet.engine.graphs import graph_of
from maskflownet.engine.torch.fused.plan import Layer, Piece
from maskflownet.engine.torch.kernels.layout import as_convolution
from maskflownet.engine.torch.module import GraphModule, computing

SLOPE = 0.1
LAST = torch.channels_last
# dtype of the maps, precision of float32 products, bound relative to the largest value
PRECISIONS = [("float32", "ieee", 1e-5), ("float32", "tf32", 3e-3), ("bfloat16", "tf32", 2e-2)]
TF32 = PRECISIONS[1]
CASES = [  # N, C, H, W, K, stride, dilation, slope
    (2, 20, 6, 8, 18, 1, 1, SLOPE),
    (1, 3, 8, 6, 16, 2, 1, SLOPE),
    (2, 33, 6, 9, 40, 1, 2, None),
    (1, 196, 1, 1, 150, 1, 1, SLOPE),  # few pixels; not whole vectors
]


def arithmetic_and_bound(device, dtype, precision, bound):
    if device.type == "cpu" and precision != "ieee":
        pytest.skip("the interpreter computes in float32")
    from maskflownet.engine.torch.kernels.convolution import Arithmetic  # noqa: PLC0415 - needs Triton

    return Arithmetic(getattr(torch, dtype), precision), bound


def leaf(*shape, device, scale=1.0):
    # Drawn on the CPU: the same numbers on every GPU.
    return (torch.randn(shape) * scale).to(device).requires_grad_()


@pytest.mark.parametrize(
    ("arithmetic", "case"),
    # TF32 and float32 differ in their products alone: two cases.
    [(p, case) for p in PRECISIONS for case in (CASES if p != TF32 else CASES[::3])],
)
def test_a_convolution(arithmetic, case, device, compare):
    from maskflownet.engine.torch.fused.gpu import ChainOperator  # noqa: PLC0415

    n, c, h, w, k, stride, dilation, slope = case
    inputs = [leaf(n, c, h, w, device=device), leaf(k, c, 3, 3, device=device, scale=c**-0.5), leaf(k, device=device)]
    arithmetic, bound = arithmetic_and_bound(device, *arithmetic)
    result = ChainOperator(Piece(1, (Layer(k, slope, stride, dilation, False),)), arithmetic)(inputs)
    assert result.dtype == arithmetic.dtype
    expected = F.conv2d(*inputs, stride, dilation, dilation)
    if slope is not None:
        # The same side of the kink: a value near zero may round to the other one.
        expected = torch.where(result.detach() > 0, expected, slope * expected)
    compare([result], [expected], inputs, bound)


@pytest.mark.parametrize("arithmetic", PRECISIONS)
def test_a_chain_of_convolutions_with_and_without_stride_and_activation(arithmetic, device, compare):
    from maskflownet.engine.torch.fused.gpu import ChainOperator  # noqa: PLC0415

    arithmetic, bound = arithmetic_and_bound(device, *arithmetic)
    slope = SLOPE if bound < 1e-4 else 1.0
    layers = [
        Layer(k, *more, False) for k, *more in ((8, slope, 2, 1), (20, slope, 1, 1), (16, slope, 2, 2), (9, None, 1, 1))
    ]
    inputs, channels = [leaf(2, 3, 12, 20, device=device)], 3
    for layer in layers:
        scale = (9 * channels) ** -0.5
        inputs += [
            leaf(layer.channels, channels, 3, 3, device=device, scale=scale),
            leaf(layer.channels, device=device),
        ]
        channels = layer.channels
    result = ChainOperator(Piece(1, tuple(layers)), arithmetic)(inputs)
    x = inputs[0]
    for layer, weight, bias in zip(layers, inputs[1::2], inputs[2::2]):
        x = F.conv2d(x, weight, bias, layer.stride, layer.dilation, layer.dilation)
        x = x if layer.slope is None else F.leaky_relu(x, layer.slope)
    compare([result], [x], inputs, bound)


def test_packed_weights_follow_the_parameters(device, close):
    from maskflownet.engine.torch.fused.gpu import ChainOperator  # noqa: PLC0415
    from maskflownet.engine.torch.kernels.convolution import Arithmetic  # noqa: PLC0415

    operator = ChainOperator(Piece(1, (Layer(16, None, 1, 1, False),)), Arithmetic(torch.float32, "ieee"))
    inputs = [leaf(*s, device=device) for s in ((1, 16, 4, 4), (16, 16, 3, 3), (16,))]
    with torch.inference_mode():
        operator(inputs)
    with torch.no_grad():
        inputs[1].mul_(2)
    operator.refresh()
    with torch.inference_mode():
        predicted = operator(inputs)
    trained = operator(inputs)  # after inference mode: the same memory, written again
    expected = F.conv2d(*inputs, padding=1)
    close(predicted, expected, 1e-5)
    close(trained, expected, 1e-5)
    assert trained.requires_grad


def test_parts_are_joined_whatever_their_strides_and_zeros_follow(device):
    from maskflownet.engine.torch.kernels.convolution import join, new_map  # noqa: PLC0415

    parts = [torch.randn(2, c, 3, 130) for c in (3, 20, 1, 7, 16, 5)]
    parts = [
        part.to(device, memory_format=(torch.preserve_format, LAST)[i in {1, 2, 4}]) for i, part in enumerate(parts)
    ]
    y = new_map(2, 64, 3, 130, torch.float32, device).fill_(float("nan"))
    assert torch.equal(join(parts, y), F.pad(torch.cat(parts, 1), (0, 0, 0, 0, 0, 12)))
    for wrong in ([*parts, parts[0]], [parts[0][:1], parts[1]], [parts[0][:, :, :2], parts[1]]):
        with pytest.raises(ValueError, match="at most 6 parts of 2 maps of 3x130 are joined"):
            join(wrong, y)


def test_phases_of_two_batches_with_and_without_gradients(device):
    from maskflownet.engine.torch.kernels.convolution import phases  # noqa: PLC0415

    images = [torch.randn(2, 3, 4, 6, device=device) for _ in range(2)]
    plain = phases(images, torch.float32)
    differentiable = phases([image.requires_grad_() for image in images], torch.float32)
    assert torch.equal(plain, differentiable)
    assert differentiable.requires_grad


def test_a_shuffle_in_channels_last_memory(device):
    from maskflownet.engine.torch.fused.gpu import shuffled  # noqa: PLC0415

    x = torch.randn(2, 20, 3, 5, device=device)
    assert torch.equal(shuffled(x, torch.float32), F.pixel_shuffle(x, 2))


def test_a_chain_of_a_batch_in_parts(device, close):
    from maskflownet.engine.torch.fused.gpu import ChainOperator  # noqa: PLC0415
    from maskflownet.engine.torch.kernels.convolution import Arithmetic  # noqa: PLC0415

    parts, weight, bias = [torch.randn(1, 20, 3, 4) for _ in range(2)], torch.randn(8, 20, 3, 3), torch.randn(8)
    operator = ChainOperator(Piece(2, (Layer(8, None, 1, 1, False),)), Arithmetic(torch.float32, "ieee"))
    found = operator([x.to(device) for x in (*parts, weight, bias)])
    close(found, F.conv2d(torch.cat(parts), weight, bias, padding=1), 1e-5)


# For many pixels, a first head narrow enough for one product of all nine taps, 3, or not, 4, and the sums of a
# convolution begun with those of an earlier one, or not. For few, all sums are.
@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize(
    ("dense", "first", "ahead"),
    [((16, 32, 16), 3, None), ((16, 24, 8), 4, (1, 2)), ((24, 16, 8), 3, (0, 2)), ((16, 160, 16), 3, None)],
)
@pytest.mark.parametrize("arithmetic", PRECISIONS)
def test_a_dense_block(arithmetic, dense, first, ahead, few, device, compare, monkeypatch):
    from maskflownet.engine.torch.kernels import convolution  # noqa: PLC0415
    from maskflownet.engine.torch.kernels.convolution import BlockSpec, DenseBlock, Head  # noqa: PLC0415

    monkeypatch.setattr(convolution, "MANY_PIXELS", 1000 if few else 0)
    # What is not written is no number.
    monkeypatch.setattr(torch, "empty", lambda *size, **more: torch.zeros(*size, **more).fill_(float("nan")))
    calls, plain = [], convolution.convolve_into
    monkeypatch.setattr(
        convolution, "convolve_into", lambda *args, **options: calls.append((args, options)) or plain(*args, **options)
    )
    arithmetic, bound = arithmetic_and_bound(device, *arithmetic)
    # Where little precision lets values round to the other side of the kink, there is none.
    slope = SLOPE if bound < 1e-4 else 1.0
    parts = [leaf(2, c, 3, 4, device=device) for c in (9, 4, 2)]
    heads = (Head(first, None, torch.float32), Head(20, slope, arithmetic.dtype))
    arrays, channels = [], 15
    for i, k in enumerate((*dense, *(head.channels for head in heads))):
        scale = (9 * channels) ** -0.5
        arrays += [leaf(k, channels, 3, 3, device=device, scale=scale), leaf(k, device=device)]
        channels += k if i < len(dense) else 0
    spec = BlockSpec((9, 4, 2), dense, heads, slope, arithmetic)
    assert spec.ahead == ahead
    packed = convolution.new_packed(arrays[0], spec.rows, spec.columns, arithmetic.dtype).detach()
    with torch.no_grad():
        spec.pack(packed, arrays[::2])
    results = DenseBlock.apply(spec, packed, *parts, *arrays)
    assert sum(options.get("sums") is not None for _, options in calls) == (5 if few else 2 if ahead else 0)
    assert sum(len(args[1]) == 1 for args, _ in calls) == (first == 3 and not few)

    x = torch.cat(parts, 1)
    for i in range(len(dense)):
        new = F.conv2d(x, arrays[2 * i], arrays[2 * i + 1], padding=1)
        x = torch.cat([F.leaky_relu(new, slope), x], 1)
    expected = [
        F.conv2d(x, arrays[6], arrays[7], padding=1),
        F.leaky_relu(F.conv2d(x, arrays[8], arrays[9], padding=1), slope),
    ]
    compare(results, expected, [*parts, *arrays], bound)


def test_sums_over_pixels_by_programs_of_several_blocks_and_a_last_one_of_fewer(device, close):
    from maskflownet.engine.torch.kernels.convolution import new_map, sum_pixels  # noqa: PLC0415

    x = new_map(2, 70, 61, 73, torch.float32, device).copy_(torch.randn(2, 70, 61, 73))
    close(sum_pixels(x), x.double().sum((0, 2, 3)), 1e-5)


def test_a_transposed_convolution_is_a_convolution_before_a_shuffle(close):
    x, weight, bias = torch.randn(2, 5, 3, 4), torch.randn(5, 7, 4, 4), torch.randn(7)
    expected = F.conv_transpose2d(x, weight, bias, stride=2, padding=1)
    result = F.conv2d(x, *as_convolution(weight, bias), padding=1)
    close(F.pixel_shuffle(result, 2), expected, 1e-6)


OFF_GRID = (0.45, -0.45)  # moves samples by .14, .28, .56, ... of each level's pixels


def draw_parameters(module):
    """Biases as of a trained network, and flows that differ little from one off the grid.

    So little precision moves few samples to another cell, where the gradient of a flow jumps.
    """
    module.initialise(0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("pred_flow6.bias"):
                parameter.copy_(torch.tensor(OFF_GRID))
            elif name.endswith("bias") and "pred_flow" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
            elif "pred_flow" in name or "dc_conv7" in name:
                parameter.mul_(0.1)


# Bounds are about three times what networks differed by whose operands were rounded on a CPU, over
# several draws: outputs .013 and .017, gradients .004 and .011. Samples a pixel off: gradients .02.
# Triton's TF32 cuts off the last bits of operands: a bias of about 7e-4 for each layer.
@pytest.mark.parametrize(("precision", "bound", "gradient_bound"), [("tf32", 4e-2, 1.2e-2), ("bf16", 6e-2, 3e-2)])
@pytest.mark.parametrize(("network", "many"), [("MaskFlownet_S", 0), ("MaskFlownet", 1500), ("MaskFlownet", 10**6)])
def test_a_whole_network(network, many, precision, bound, gradient_bound, device, close, monkeypatch):
    if device.type == "cpu":
        pytest.skip("too slow to interpret")
    from maskflownet.engine.torch.fused.gpu import GPUNetwork  # noqa: PLC0415 - needs Triton
    from maskflownet.engine.torch.kernels import convolution  # noqa: PLC0415

    monkeypatch.setattr(convolution, "MANY_PIXELS", many)
    graph = graph_of("network", network=network, flow_multiplier=1.0, pyramid="paper")
    plain, fused = GraphModule(graph), GPUNetwork(graph, precision)
    draw_parameters(plain)
    fused.load_state_dict(plain.state_dict())
    plain, fused = plain.to(device), fused.to(device)
    generator = torch.Generator().manual_seed(2)
    images = [torch.rand(2, 3, 128, 192, generator=generator) - 0.5 for _ in range(2)]
    images = [image.to(device) for image in images]
    towards = None
    found = []
    for module, arithmetic in ((plain, "float32"), (fused, precision)):
        with computing(arithmetic):
            outputs = module(*images)
            if towards is None:
                towards = [torch.randn(o.shape, generator=generator).to(device) for o in outputs]
            total = sum((output * t).sum() for output, t in zip(outputs, towards))
            found.append((outputs, torch.autograd.grad(total, list(module.parameters()))))
    (outputs, gradients), (ours, our_gradients) = found
    for mine, theirs in zip(ours, outputs):
        # The mean is a bias, which hides what the device compute.
        mean = theirs.mean((2, 3), keepdim=True)
        close(mine - mean, theirs - mean, bound)
    # Kinks of activations and samplings let single gradients differ; their directions agree.
    pairs = zip(our_gradients, gradients)
    agreement = [F.cosine_similarity(a.flatten(), b.flatten(), dim=0) for a, b in pairs]
    assert torch.stack(agreement).mean() > 1 - gradient_bound
