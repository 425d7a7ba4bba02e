# SPDX-License-Identifier: MIT
"""Where operations are measured. A place has a name, a directory `path` to work in, and
open() (empty), cold() (the same contents, nothing cached), close(). All mounts are in a mount
namespace of scripts/bench's own and end with it."""
import os
import subprocess
import time

from base import KEGFS, drop_caches, fresh_directory, load_program, remove, run, tool


def cpu_ns(pid):
    """CPU time of all threads of a process."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
            total += int(file.read().split()[0])
    return total


class Kegfs:
    def __init__(self, where, transport="auto", options=""):
        self.name = f"kegfs {transport}" if transport != "auto" else "kegfs"
        self.name += f" {options}" if options else ""
        self.base = f"{where}/{self.name.replace(' ', '-')}"
        self.store, self.path = f"{self.base}/store", f"{self.base}/mnt"
        self.options = f"transport={transport}" + (f",{options}" if options else "")

    def mount(self):
        run(KEGFS, "mount", self.store, self.path, "-o", self.options)

    def umount(self):
        run(KEGFS, "umount", self.path)

    def open(self):
        if os.path.ismount(self.path):
            self.umount()
        fresh_directory(self.base)
        os.mkdir(self.path)
        self.mount()

    def cold(self):
        self.umount()
        drop_caches()
        load_program(KEGFS)
        self.mount()

    def pid(self):
        with open(f"{self.store}/LOCK") as file:
            return int(file.read().split()[0])

    def cpu_ns(self):
        return cpu_ns(self.pid())

    def kill(self):
        """kill -9; the store stays as it is."""
        pid = self.pid()
        os.kill(pid, 9)
        while os.path.exists(f"/proc/{pid}/fd/0"):
            time.sleep(0.01)
        run("umount", "-l", self.path)

    def compact(self):
        with open(f"{self.path}/.kegfs/control", "w") as file:
            file.write("compact\n")

    def close(self):
        if os.path.ismount(self.path):
            self.umount()
        remove(self.base)


class Ext4:
    """On a loop device. The image is made once: its memory, or its blocks, are then in place."""

    def __init__(self, where, mib):
        self.name = "ext4"
        self.base = f"{where}/ext4"
        self.image, self.path = f"{self.base}/image", f"{self.base}/mnt"
        self.mib = mib

    def open(self):
        if os.path.ismount(self.path):
            run("umount", self.path)
        if not os.path.exists(self.image):
            fresh_directory(self.base)
            os.mkdir(self.path)
            run("fallocate", "-l", f"{self.mib}M", self.image)
        # Else a thread writes the tables while things are measured.
        run("mkfs.ext4", "-q", "-F", "-i", "8192", "-E", "lazy_itable_init=0,lazy_journal_init=0",
            self.image)
        run("mount", "-o", "loop", self.image, self.path)
        os.rmdir(f"{self.path}/lost+found")

    def cold(self):
        run("umount", self.path)
        drop_caches()
        run("mount", "-o", "loop", self.image, self.path)

    def close(self):
        if os.path.ismount(self.path):
            run("umount", self.path)
        remove(self.base)


class Null:
    """tests/bench/nullfs.c. It lives through all rounds, so that its memory is in place."""

    def __init__(self, where, transport, option=""):
        self.name = f"null {transport}" + (f" {option}" if option else "")
        self.option = [option] if option else []
        self.base = f"{where}/{self.name.replace(' ', '-')}"
        self.transport = transport
        self.mountpoint, self.path = f"{self.base}/mnt", f"{self.base}/mnt/d"
        self.process = None

    def open(self):
        if not self.process:
            fresh_directory(self.base)
            os.mkdir(self.mountpoint)
            self.process = subprocess.Popen([tool("nullfs"), self.mountpoint, self.transport,
                                             *self.option], stdout=subprocess.PIPE, text=True)
            while not os.path.ismount(self.mountpoint):
                if self.process.poll() is not None:
                    raise RuntimeError(f"nullfs {self.transport} ended")
                time.sleep(0.01)
            self.prime()
        fresh_directory(self.path)

    def prime(self):
        """The kernel learns that OPEN is not answered, and reads ahead as on kegfs."""
        with open(f"{self.mountpoint}/primer", "w"):
            pass
        with open(f"{self.mountpoint}/primer"):
            pass
        os.unlink(f"{self.mountpoint}/primer")
        device = os.stat(self.mountpoint).st_dev
        with open(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb",
                  "w") as file:
            file.write("1024")

    def cold(self):
        drop_caches()
        time.sleep(0.3)  # forgets come in batches

    def cpu_ns(self):
        return cpu_ns(self.process.pid)

    def close(self):
        if self.process:
            run("umount", self.mountpoint)
            self.process.communicate()
            self.process = None
        remove(self.base)


class Directory:
    """A directory as it is."""

    def __init__(self, name, path):
        self.name, self.path = name, path

    def open(self):
        fresh_directory(self.path)

    def cold(self):
        os.sync()
        drop_caches()

    def close(self):
        remove(self.path)
