#!/usr/bin/env python3
"""Writes a linker script that puts the functions which a program calls side by side, in the order of their first call.

    order.py PROGRAM SECONDS OUTPUT [ARGUMENT...]    PROGRAM must have its symbols; it is killed after SECONDS

A breakpoint stands on every function; each is taken away when it is met. What is mapped of a program's file is read in windows
of 64 KiB, so a few functions in each window have all of it resident. Lines name functions without the hashes of their crates, so
that they outlive changes of code, features and compiler.
"""

import ctypes
import os
import re
import signal
import subprocess
import sys

TRACEME, CONT, GETREGS, SETREGS, SETOPTIONS = 0, 7, 12, 13, 0x4200
TRACE_CLONE, EXIT_KILL = 1 << 3, 1 << 20
EVERY_THREAD = 0x40000000
RIP = 16
LIBRARY = "libc.a"

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
Registers = ctypes.c_ulonglong * 27


def functions(program):
    """Address -> (names, size)."""
    found = {}
    for line in subprocess.run(["nm", "-S", program], capture_output=True, text=True, check=True).stdout.splitlines():
        fields = line.split()
        if len(fields) == 4 and fields[2] in "tTWi":
            names, size = found.get(int(fields[0], 16), ([], 0))
            found[int(fields[0], 16)] = (names + [fields[3]], max(size, int(fields[1], 16)))
    return found


def first_calls(command, addresses, seconds):
    """The addresses of the functions that are called, in the order of their first call."""
    # Kept: an object that goes looks after its process, and takes the stop that is waited for here.
    process = subprocess.Popen(command, preexec_fn=lambda: libc.ptrace(TRACEME, 0, None, None))
    child = process.pid
    os.waitpid(child, EVERY_THREAD)
    with open(f"/proc/{child}/maps") as maps:
        base = int(maps.readline().split("-")[0], 16)
    memory = os.open(f"/proc/{child}/mem", os.O_RDWR)
    before = {address: os.pread(memory, 1, base + address) for address in addresses}
    for address in addresses:
        os.pwrite(memory, b"\xcc", base + address)
    libc.ptrace(SETOPTIONS, child, None, TRACE_CLONE | EXIT_KILL)
    libc.ptrace(CONT, child, None, None)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.alarm(seconds)
    called, registers = {}, Registers()
    while True:
        thread, status = os.waitpid(-1, EVERY_THREAD)
        if not os.WIFSTOPPED(status):
            if thread == child:
                return list(called)
            continue
        stopped_by = os.WSTOPSIG(status)
        if stopped_by == signal.SIGTRAP and not status >> 16:
            libc.ptrace(GETREGS, thread, None, ctypes.byref(registers))
            address = registers[RIP] - 1 - base
            if address in before:
                if address not in called:
                    called[address] = True
                    os.pwrite(memory, before[address], base + address)
                registers[RIP] -= 1
                libc.ptrace(SETREGS, thread, None, ctypes.byref(registers))
        handed_on = 0 if stopped_by in (signal.SIGTRAP, signal.SIGSTOP) else int(stopped_by)
        libc.ptrace(CONT, thread, None, handed_on)


def members(library):
    """Function -> the one object of the C library that has it."""
    path = subprocess.run(["cc", f"-print-file-name={library}"], capture_output=True, text=True, check=True).stdout.strip()
    listed = subprocess.run(["nm", "-A", "--defined-only", path], capture_output=True, text=True, check=True).stdout
    found = {}
    for line in listed.splitlines():
        place, _, rest = line.rpartition(":")
        fields = rest.split()
        if len(fields) == 3 and fields[1] in "tTWi":
            found.setdefault(fields[2], set()).add(place.rpartition(":")[2])
    return {name: objects.pop() for name, objects in found.items() if len(objects) == 1}


def input_section(name, objects):
    """What the linker is to take for a function, without what another build may have otherwise; none for what it cannot."""
    if name.startswith("_R"):
        name = re.sub(r"Cs[0-9A-Za-z]+_", "Cs*_", re.sub(r"\.(llvm\.)?\d+$", "*", name))
        # The first star: what is marked as cold is in .text.unlikely.NAME.
        return f"*(.text.*{name})"
    return f"*{LIBRARY}:{objects[name]}(.text .text.*)" if name in objects else None


def main():
    program, seconds, output = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    all_functions = functions(program)
    called = first_calls([program, *sys.argv[4:]], sorted(all_functions), seconds)
    objects = members(LIBRARY)
    sections = (input_section(name, objects) for address in called for name in sorted(all_functions[address][0]))
    lines = dict.fromkeys(one for one in sections if one is not None)
    with open(output, "w") as script:
        script.write("/* Written by scripts/order.sh: what a start and an idle agent call, in the order of the first call. */\n")
        script.write("SECTIONS\n{\n  .text.start :\n  {\n")
        script.writelines(f"    {line}\n" for line in lines)
        script.write("  }\n}\nINSERT BEFORE .text;\n")
    size = sum(all_functions[address][1] for address in called)
    print(f"{len(called)} functions of {size} bytes were called; {len(lines)} lines", file=sys.stderr)


main()
