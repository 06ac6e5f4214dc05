"""Unmodified programs of Debian's i386 packages do under vxplug what they do on the kernel."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from .conftest import run
from .test_files import tree

ROOT = Path(__file__).resolve().parents[2]
FOLDER = os.environ.get("VXPLUG_DEBIAN_I386")

if not FOLDER:
    pytest.skip("VXPLUG_DEBIAN_I386 names no folder made by .ci/debian", allow_module_level=True)
BUSYBOX, BASH = Path(FOLDER) / "root/bin/busybox", Path(FOLDER) / "root/bin/bash-static"


def fill(folder: Path) -> None:
    """Real input: this project's own sources."""
    folder.mkdir()
    for source in sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("csrc/core/*.[ch]"), *ROOT.glob("csrc/core/*.def")]):
        shutil.copyfile(source, folder / source.name)
    (folder / "numbers").write_text("".join(f"{n * 7919 % 1009}\t{n}\n" for n in range(5000)))
    with tarfile.open(folder / "source.tar", "w") as archive:
        for name in ("linux.c", "numbers"):
            archive.add(folder / name, f"sub/folder/{name}")
        link = tarfile.TarInfo("sub/link")
        link.type, link.linkname = tarfile.SYMTYPE, "folder/numbers"
        archive.addfile(link)
        script = tarfile.TarInfo("sub/script")
        script.size, script.mode = 5, 0o750
        archive.addfile(script, io.BytesIO(b"true\n"))
    for path in folder.iterdir():
        os.utime(path, (1_700_000_000, 1_700_000_000))


WORDS = 'BEGIN{FS="[^A-Za-z]+"}{for(i=1;i<=NF;i++)n[$i]++}END{for(w in n)if(n[w]>40)printf "%s %d\\n",w,n[w]}'
BUILTINS = r"""
total=0
while read -r value rest; do total=$((total + value)); done < numbers
echo "total $total"
for file in *.md; do case $file in l*) echo "l: $file";; *) echo "${file%.md}";; esac; done
i=0; until [ $i -ge 5 ]; do i=$((i+1)); printf '%03d|' $i; done; echo
trap 'echo trapped' USR1
kill -USR1 $$
echo after; echo one > made; echo two >> made; read -r line < made; echo "$line"
test -f made && test ! -d made && echo yes
exec 5< numbers; read -r a b <&5; read -r c d <&5; echo "$a $b $c $d"; exec 5<&-
unset nothing; echo "${nothing:-default} ${#line} ${line#o}"
exit 3
"""
BASHISMS = r"""
declare -A count; declare -a list
while read -r word _; do ((count[$word]++)); list+=("$word"); done < numbers
echo ${#count[@]} ${#list[@]} ${list[@]:10:5}
mapfile -t lines < linux.md; echo "${#lines[@]} ${lines[3]}"
[[ "${lines[0]}" =~ ^#\ (.*)$ ]] && echo "${BASH_REMATCH[1]^^}"
for ((i = 0; i < 5; i++)); do printf '%q %x\n' "a b$i" $((i ** 9)); done
fib() { local n=$1; if ((n < 2)); then R=$n; else fib $((n-1)); local a=$R; fib $((n-2)); R=$((a+R)); fi; }
fib 15; echo $R
read -r first <<< 'here string'; echo $first
exit 7
"""

CASES = {
    "sort": (BUSYBOX, ["sort", "-k2", "linux.c", "opcodes.def"], b""),
    "sort numbers": (BUSYBOX, ["sort", "-n", "-u", "numbers"], b""),
    "grep": (BUSYBOX, ["grep", "-n", "-E", "^(static|bool) .*\\(", "linux.c", "region.c"], b""),
    "grep counts": (BUSYBOX, ["grep", "-r", "-c", "guest", "."], b""),
    "sed": (BUSYBOX, ["sed", "-n", "-e", "s/\\(vx_[a-z]*\\)/<\\1>/gp;/^}/=", "linux.c"], b""),
    "sed in place": (BUSYBOX, ["sed", "-i", "s/e/E/g", "linux.c", "run.c"], b""),
    "awk": (BUSYBOX, ["awk", WORDS, "linux.c"], b""),
    "awk sums": (BUSYBOX, ["awk", '{s[$1%10]+=$2; l+=length($0)}END{for(i=0;i<10;i++)print i,s[i]; printf "%.3f %s\\n",l/NR,toupper("x")}', "numbers"], b""),
    "tar list": (BUSYBOX, ["tar", "tf", "source.tar"], b""),
    "tar extract": (BUSYBOX, ["tar", "xf", "source.tar"], b""),
    "gzip": (BUSYBOX, ["gzip", "opcodes.def", "linux.c"], b""),
    "gzip stream": (BUSYBOX, ["gzip", "-c"], b"compress me " * 9999),
    "bzip2": (BUSYBOX, ["bzip2", "-k", "translate.c"], b""),
    "md5sum": (BUSYBOX, ["md5sum", "linux.c", "run.c", "opcodes.md"], b""),
    "sha256sum": (BUSYBOX, ["sha256sum"], b"x" * 1_000_000),
    "wc": (BUSYBOX, ["wc", "linux.c", "region.c", "numbers"], b""),
    "od": (BUSYBOX, ["od", "-A", "x", "-t", "x1", "linux.h"], b""),
    "diff": (BUSYBOX, ["diff", "-u", "linux.c", "linux_mem.c"], b""),
    "find": (BUSYBOX, ["find", ".", "-name", "*.c", "-size", "+8k"], b""),
    "cp": (BUSYBOX, ["cp", "-r", ".", "copy"], b""),
    "dd": (BUSYBOX, ["dd", "if=numbers", "of=part", "bs=1000", "skip=3", "count=7"], b""),
    "rm": (BUSYBOX, ["rm", "-r", "linux.c", "run.c", "missing"], b""),
    "ln": (BUSYBOX, ["ln", "-s", "linux.c", "symbolic"], b""),
    "vi": (BUSYBOX, ["vi", "-c", ":%s/guest/GUEST/g", "-c", ":wq", "linux.c"], b""),
    "vi keys": (BUSYBOX, ["vi", "linux.c"], b"ddjjyyp:3,5d\niinserted text\x1b:wq\n"),
    "sh": (BUSYBOX, ["sh", "-c", BUILTINS], b""),
    "sh from stdin": (BUSYBOX, ["sh"], BUILTINS.encode()),
    "bash": (BASH, ["-c", BASHISMS], b""),
    "bash posix": (BASH, ["--posix", "-c", BUILTINS], b""),
    "bash from stdin": (BASH, ["-s", "one", "two"], b'echo "$# $2"; read -r x; echo "got $x"\nthe line\nexit 4\n'),
    "status": (BUSYBOX, ["expr", "1", "=", "2"], b""),
    "usage": (BUSYBOX, ["no-such-applet"], b""),
}


def without_times(text: bytes) -> list[bytes]:
    """dd tells how long it took."""
    return [line for line in text.splitlines() if b"seconds" not in line]


@pytest.mark.parametrize("case", CASES)
def test_as_native(case, sandboxed, tmp_path):
    """Without it a real program could go wrong in a way that no test of single calls shows."""
    program, arguments, data = CASES[case]
    there, here = tmp_path / "there", tmp_path / "here"
    fill(there)
    shutil.copytree(there, here)
    env = {"PATH": "/bin", "TERM": "vt100"}
    native = run([str(program), *arguments], cwd=there, input=data, env=env)
    ours = sandboxed(program, *arguments, folder=here, data=data, env=env)
    assert ours.out == native.out
    assert without_times(ours.err) == without_times(native.err)
    assert ours.code == native.code
    assert tree(here) == tree(there)


def test_tar_create(sandboxed, tmp_path):
    """Without it an archive made in the sandbox could hold something else than the files."""
    fill(tmp_path / "here")
    made = sandboxed(BUSYBOX, "tar", "cf", "made.tar", "linux.c", "numbers", folder=tmp_path / "here")
    assert (made.code, made.err) == (0, b"")
    with tarfile.open(tmp_path / "here" / "made.tar") as archive:
        assert archive.getnames() == ["linux.c", "numbers"]
        assert archive.extractfile("numbers").read() == (tmp_path / "here" / "numbers").read_bytes()
