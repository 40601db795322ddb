#!/usr/bin/env bash
# open_clip_torch 3.3.0 (torch 2.13.0, CPU), seen 2026-11-29: a CoCa made without weights has a
# parameter that nothing ever sets.
#
# The class of CoCa's decoder makes `text_projection` by `torch.empty` and has an `init_parameters`
# that would fill it, which its constructor does not call (and which refers to attributes that the
# class does not have). So every freshly made CoCa answers with what the memory held: mostly small
# numbers, now and then infinities or NaN, and never the same for the same seed. All other parameters
# are initialised, so a training from scratch looks like any other until it does not.
#
# Valid input: `open_clip.CoCa` with a small configuration, in torch's documented debugging mode, in
# which `torch.empty` gives NaN (torch.utils.deterministic.fill_uninitialized_memory).
#
# Output seen:
#   NaN in text_decoder.text_projection: 1024 of 1024
#   other parameters with NaN: 0
#   logits that are NaN: 288 of 288
#
# Exits with 0 while that holds, with 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.3.5 ftfy==6.3.1 regex==2025.11.3 \
  pillow==12.0.0 tqdm==4.67.1 pyyaml==6.0.3 huggingface_hub==1.1.4 safetensors==0.7.0
"$folder/venv/bin/pip" install --quiet --no-deps torchvision==0.28.0 timm==1.0.22 \
  open_clip_torch==3.3.0
cat > "$folder/coca.py" <<'PY'
import torch

# A CUDA build of torchvision beside a CPU build of torch registers no operators of its own.
if "+cpu" in torch.__version__:
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import open_clip

torch.use_deterministic_algorithms(True)
tower = {"width": 32, "layers": 2}
model = open_clip.CoCa(
    embed_dim=32,
    vision_cfg={**tower, "image_size": 32, "patch_size": 8, "head_width": 8,
                "attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True},
    text_cfg={**tower, "context_length": 10, "vocab_size": 32, "heads": 4,
              "embed_cls": True, "output_tokens": True},
    multimodal_cfg={**tower, "context_length": 10, "vocab_size": 32, "heads": 4},
)
left = model.text_decoder.text_projection
others = [n for n, p in model.named_parameters() if p is not left and bool(p.isnan().any())]
with torch.no_grad():
    logits = model(torch.rand(1, 3, 32, 32), torch.randint(0, 32, (1, 10)))["logits"]
print(int(left.isnan().sum()), left.numel(), len(others), int(logits.isnan().sum()), logits.numel())
PY
read -r nan all others bad logits <<< "$("$folder/venv/bin/python" "$folder/coca.py")"
echo "NaN in text_decoder.text_projection: $nan of $all"
echo "other parameters with NaN: $others"
echo "logits that are NaN: $bad of $logits"
[ "$nan" -eq "$all" ] && [ "$others" -eq 0 ] && [ "$bad" -eq "$logits" ]
