"""`python -m learners.export`: an ExportRequest as JSON on stdin; on stdout lines of Exporting, and an Exported as the last one."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import msgspec

from learners.export.request import Exported, Exporting, ExportRequest, Tell, unheard
from learners.model.checkpoint import ModelError, first_line


def exported(request: ExportRequest, tell: Tell = unheard) -> tuple[str, ...]:
    """Write what is asked for; notes. Raises ModelError."""
    from learners.export.merged import merge
    from learners.export.ollama import modelfile

    out = Path(request.out)
    if request.format == "merged":
        return merge(request, out, tell)
    if request.format == "recipe":
        from learners.export.classifier import write_classifier

        write_classifier(request, out / "reward", tell)
        shutil.copyfile(Path(__file__).with_name("reward_service.py"), out / "reward.py")
        return merge(request, out / "policy", tell)
    from learners.export.gguf_file import write_gguf

    merged = out / "merged"
    notes = merge(request, merged, tell)
    file = out / f"{request.name}.gguf"
    write_gguf(merged, file, request.outtype, request.name, tell, request.trust_remote_code)
    if request.format == "ollama":
        text, more = modelfile(merged, file.name, request)
        (out / "Modelfile").write_text(text, encoding="utf-8")
        notes += more
    for each in merged.iterdir():
        each.unlink()
    merged.rmdir()
    return notes


def main() -> None:
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=ExportRequest)
    try:
        said = Exported(exported(request, _tell))
    except ModelError as error:
        said = Exported(error=error.what, hint=error.hint)
    except MemoryError:
        said = Exported(error="the model does not fit into memory", hint="export it on a larger machine, or --format peft")
    except OSError as error:
        said = Exported(error=f"cannot write the model: {error.strerror or first_line(error)}", hint="free some space, or give another --out")
    _tell(said)


def _tell(said: Exporting | Exported) -> None:
    print("\n" + msgspec.json.encode(said).decode(), flush=True)  # libraries may have printed half a line


if __name__ == "__main__":
    main()
