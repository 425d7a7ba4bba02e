#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writers that keep account of what they were promised, and a judge of what a crash left.

    load.py run DIRECTORY ACCOUNTS     writers, one process and one subdirectory each, until the
                                       first error or SIGTERM; makes ACCOUNTS/ready when each
                                       has done --steps steps
    load.py judge DIRECTORY ACCOUNTS   compares the tree with the accounts; prints how many steps
                                       were done, how many of them are lost, how many writers had
                                       a call aborted by the crash, how many steps nothing but the
                                       timer had synced, and how many trees are wrong

A writer makes system calls one after the other ("steps"), all drawn from its seed and from a model
of its tree, so that the judge can draw the same ones again. The account need only say how far the
writer came: how many steps were begun, how many are done, and how many had been done when the last
fsync that returned 0 was begun. It is a shared mapping of a file outside of the mount. It also says
when a call failed: an error from before the crash is a failure, whatever it is.

The judge steps the model forward and looks for the state that the tree is in. kegfs has one log, so
what a crash leaves is the state after some step: after a power cut not before the last step that
was synced, or that was done longer ago than the sync interval (and a margin), after a kill of the daemon not before the last step that was done. Nothing else will do:
not a newer file beside an older one, no half file, no name too few or too many. Promise 4 takes two
states out: a file that was truncated and then written in one piece is never found empty, and with
commit=close a file is never found half written. The state found is where the writers go on in the
next round, and a later crash must not lose it either.
"""
import argparse
import copy
import errno
import hashlib
import mmap
import os
import pickle
import random
import signal
import stat
import struct
import sys
import time
import traceback

FILES_MAX = 24  # of a writer
SIZE_MAX = 1 << 20
PAGE = 4096
BIG = "big"  # the name of the file that is judged by its hash
HOLD = 0.2  # seconds; a truncation that stood alone for longer may be in the log by itself
# What a call gets that the daemon had taken, or was to take, when it died; from io_uring the second.
ABORTED = {errno.ECONNABORTED, errno.ECANCELED}
CRASH_ERRORS = ABORTED | {errno.EIO, errno.ENOTCONN}  # and only from the crash on
# Seconds by which a timer may be late on a machine that does much else. What a writer has seen of
# that (it slept too long, or a call took long) is added so many times.
MARGIN, STALLS = 5, 5


TIME = struct.Struct("=d")


def now():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Account:
    """How far a writer came; begun >= done >= synced, in steps. When its last truncation to zero was
    begun and when a call failed, and the longest that it was kept waiting, in seconds."""

    LAYOUT = struct.Struct("=QQQdddi")

    def __init__(self, path, create):
        if create:
            with open(path, "wb") as file:
                file.write(bytes(self.LAYOUT.size))
        with open(path, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), 0)
        (self.begun, self.done, self.synced, self.held, self.failed, self.stall,
         self.error) = self.LAYOUT.unpack(self.map[:])

    def keep(self):
        self.map[:] = self.LAYOUT.pack(self.begun, self.done, self.synced, self.held, self.failed,
                                       self.stall, self.error)

    def waited(self, seconds):
        self.stall = max(self.stall, seconds)


class Sum:
    """Contents too big to keep, made by appending: their size and hash."""

    def __init__(self, size=0, digest=None):
        self.size, self.digest = size, digest or hashlib.blake2b(digest_size=16)

    def __len__(self):
        return self.size

    def extended(self, data):
        digest = self.digest.copy()
        digest.update(data)
        return Sum(self.size + len(data), digest)

    def __deepcopy__(self, memo):
        return self  # it never changes

    def value(self):
        return self.size, self.digest.hexdigest()


class File:
    """Contents and mode; `staged` is what commit=close holds back while it is open."""

    def __init__(self):
        self.data, self.staged, self.mode = b"", None, 0o644

    def value(self):
        return self.mode, self.data.value() if isinstance(self.data, Sum) else self.data

    def settle(self):
        """Nothing is open: as it is kept from round to round."""
        self.mode, self.data = self.value()
        self.staged = None


class Model:
    """A writer's tree: paths to a File (hard links share one), a str (symbolic link) or None."""

    def __init__(self, commit_close):
        self.tree, self.commit_close, self.open = {}, commit_close, None

    def files(self):
        return [p for p, node in self.tree.items() if isinstance(node, File) and p != BIG]

    def directories(self):
        return [""] + [p + "/" for p, node in self.tree.items() if node is None]

    def state(self):
        """What the judge compares: everything by value."""
        return {p: node.value() if isinstance(node, File) else node
                for p, node in self.tree.items()}

    def apply(self, step):
        getattr(self, "do_" + step[0])(*step[1:])

    def do_open(self, path, flags):
        if path not in self.tree:
            self.tree[path] = File()
            fresh = True
        else:
            fresh = bool(flags & os.O_TRUNC)
        self.open = self.tree[path]
        empty = Sum() if path == BIG else b""
        if fresh and self.commit_close:
            self.open.staged = empty
        elif fresh:
            self.open.data = empty

    def do_write(self, at, data):
        file = self.open
        old = file.data if file.staged is None else file.staged
        if isinstance(old, Sum):
            assert at == len(old)
            old = old.extended(data)
        else:
            old = old[:at] + bytes(max(0, at - len(old))) + data + old[at + len(data):]
        if file.staged is None:
            file.data = old
        else:
            file.staged = old

    def commit(self):
        if self.open.staged is not None:
            self.open.data, self.open.staged = self.open.staged, None

    def do_fsync(self):
        self.commit()

    def do_close(self):
        self.commit()
        self.open = None

    def do_truncate(self, path, size):
        file = self.tree[path]
        file.data = file.data[:size] + bytes(max(0, size - len(file.data)))

    def do_chmod(self, path, mode):
        self.tree[path].mode = mode

    def do_unlink(self, path):
        del self.tree[path]

    do_rmdir = do_unlink

    def do_mkdir(self, path):
        self.tree[path] = None

    def do_link(self, old, new):
        self.tree[new] = self.tree[old]

    def do_symlink(self, text, path):
        self.tree[path] = text

    def do_rename(self, old, new):
        if self.tree[old] is None:
            for path in [p for p in self.tree if p.startswith(old + "/")]:
                self.tree[new + path[len(old):]] = self.tree.pop(path)
        elif self.tree.get(new) is not None and self.tree[new] is self.tree[old]:
            return  # two names of one file: rename does nothing
        self.tree[new] = self.tree.pop(old)

    def do_fsyncdir(self, path):
        pass


class Calls:
    """The same steps as system calls, in the writer's directory. That is its working directory, so
    that what comes after a lazy unmount fails and does not go to what was below the mount."""

    def __init__(self, top):
        os.makedirs(top, exist_ok=True)
        os.chdir(top)
        self.fd = -1

    def apply(self, step):
        getattr(self, "do_" + step[0])(*step[1:])

    def do_open(self, path, flags):
        self.fd = os.open(path, flags, 0o644)

    def do_write(self, at, data):
        if os.pwrite(self.fd, data, at) != len(data):
            raise OSError(errno.ECONNABORTED, "a short write")  # the second part of it failed

    def do_fsync(self):
        os.fsync(self.fd)

    def do_close(self):
        fd, self.fd = self.fd, -1
        os.close(fd)

    do_truncate, do_chmod, do_unlink, do_rmdir, do_mkdir, do_link, do_symlink, do_rename = map(
        staticmethod, (os.truncate, os.chmod, os.unlink, os.rmdir, os.mkdir, os.link, os.symlink,
                       os.rename))

    def do_fsyncdir(self, path):
        fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


class Draw:
    """Draws operations from a seed; each is a list of steps. Asks the model as it goes."""

    SYNCS = ("fsync", "fsyncdir")

    def __init__(self, seed, model, big, unsynced):
        self.random, self.model, self.big, self.count = random.Random(seed), model, big, 0
        # All writers of a round sync often, or all do seldom: one fsync makes everyone's durable.
        share = random.Random(seed.split("/")[0]).choice((1, 0.2, 0.01))
        self.sync_share = 0 if unsynced else share

    def name(self):
        self.count += 1
        directory = self.random.choice(self.model.directories())
        return f"{directory}{self.random.getrandbits(24):06x}-{self.count}"

    def data(self):
        limit = self.random.choice((100, 5000, 40000, 40000, 200000))
        if self.random.random() < 0.02:
            limit = SIZE_MAX
        return self.random.randbytes(self.random.randint(1, limit))

    def maybe(self, share, *steps):
        return list(steps) if self.random.random() < share * self.sync_share else []

    def writes(self):
        """What comes between an open that empties and the close: at most SIZE_MAX bytes."""
        at, steps = 0, []
        for _ in range(self.random.choice((1, 1, 2, 5))):
            data = self.data()
            if at + len(data) <= SIZE_MAX:
                steps += [("write", at, data)] + self.maybe(0.1, ("fsync",))
                at += len(data)
        return steps + self.maybe(0.3, ("fsync",))

    def parent(self, path):
        return ("fsyncdir", os.path.dirname(path))

    def create(self):
        path = self.name()
        return ([("open", path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)] + self.writes() +
                [("close",)] + self.maybe(0.2, self.parent(path)))

    def replace(self, path):
        return [("open", path, os.O_WRONLY | os.O_TRUNC)] + self.writes() + [("close",)]

    def replace_by_rename(self, path):
        new = self.name()
        return ([("open", new, os.O_WRONLY | os.O_CREAT | os.O_EXCL)] + self.writes() +
                [("close",), ("rename", new, path)] + self.maybe(0.3, self.parent(path)))

    def change(self, path):
        size = len(self.model.tree[path].data)
        at = self.random.choice((size, self.random.randint(0, size + 9000)))
        data = self.data()
        if at + len(data) > SIZE_MAX:
            at = 0
        return ([("open", path, os.O_RDWR), ("write", at, data)] +
                self.maybe(0.3, ("fsync",)) + [("close",)])

    def shape(self, path):
        return self.random.choice((
            [("truncate", path, self.random.randint(1, 100000))],
            [("chmod", path, self.random.choice((0o600, 0o644, 0o755)))],
            [("link", path, self.name())],
            [("symlink", path, self.name())],
            [("rename", path, self.name())]))

    def unlink(self):
        path = self.random.choice([p for p, node in self.model.tree.items() if node is not None and p != BIG])
        return [("unlink", path)] + self.maybe(0.3, self.parent(path))

    def directories(self):
        have = [p[:-1] for p in self.model.directories() if p]
        if len(have) < 4:
            path = self.name()
            return [("mkdir", path)] + self.maybe(0.5, self.parent(path))
        path = self.random.choice(have)
        if not any(p.startswith(path + "/") for p in self.model.tree):
            return [("rmdir", path)] + self.maybe(0.3, self.parent(path))
        new = os.path.basename(self.name())
        return [("rename", path, new)] + self.maybe(0.3, self.parent(new))

    def replace_big(self):
        """One file, whole and in many writes."""
        path, steps = BIG, []
        size = int(self.big ** self.random.uniform(0.9, 1))
        for at in range(0, size, SIZE_MAX):
            piece = self.random.randbytes(4096) * (SIZE_MAX // 4096)
            steps.append(("write", at, piece[:min(SIZE_MAX, size - at)]))
        return [("open", path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)] + steps + [("close",)]

    def operation(self):
        if self.big:
            return self.replace_big()
        files = self.model.files()
        what = self.random.random()
        if what < 0.1:
            return self.directories()
        if len(files) < FILES_MAX // 2 or (what < 0.25 and len(files) < FILES_MAX):
            return self.create()
        if len(self.model.tree) > FILES_MAX + 4 or what < 0.3:
            return self.unlink()
        path = self.random.choice(files)
        for limit, draw in ((0.5, self.replace), (0.7, self.replace_by_rename), (0.9, self.change)):
            if what < limit:
                return draw(path)
        return self.shape(path)

    def steps(self):
        while True:
            yield from self.operation()
            yield None  # here it may stop


def empties(model, step):
    """Whether the step is a truncation to zero that kegfs holds back for the write behind it."""
    return (step[0] == "open" and step[2] & os.O_TRUNC and not model.commit_close and
            step[1] in model.tree and model.tree[step[1]].data != b"")


def parts(step):
    """The requests that the kernel makes of a step: a write that begins within a page it does not
    have cached ends there, and another one follows. It is cut nowhere else: a request takes 256
    pages (max_write), a write that begins within a page ends below SIZE_MAX (Draw.change), and
    that of a big file begins at a multiple of SIZE_MAX and is no longer."""
    assert step[0] != "write" or step[1] // SIZE_MAX == (step[1] + len(step[2]) - 1) // SIZE_MAX
    if step[0] == "write" and step[1] % PAGE and step[1] // PAGE != (step[1] + len(step[2])) // PAGE:
        _, at, data = step
        first = PAGE - at % PAGE
        return [("write", at, data[:first]), ("write", at + first, data[first:])]
    return [step]


# ---- Writing ----

def paths(accounts, number):
    return [f"{accounts}/{number}.{kind}" for kind in ("model", "account", "slow", "times")]


def load(accounts, number, options):
    """The model that the last round left, and the draw of this round."""
    model = Model(options.commit_close)
    try:
        with open(paths(accounts, number)[0], "rb") as file:
            model.tree = pickle.load(file)
    except FileNotFoundError:
        pass
    big = options.big if number == options.writers - 1 else 0
    return model, Draw(f"{options.seed}/{number}", model, big, options.unsynced)


def pause(options, account):
    """Between operations; not at once with the other writers."""
    if options.pace:
        seconds, begun = options.pace * random.uniform(0.5, 1.5), now()
        time.sleep(seconds)
        account.waited(now() - begun - seconds)
        account.keep()


def write(options, number):
    model, draw = load(options.accounts, number, options)
    _, of_account, of_slow, of_times = paths(options.accounts, number)
    account = Account(of_account, True)
    stopped, emptied = [], 0
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    with (open(of_slow, "wb", buffering=0) as slow, open(of_times, "wb", buffering=0) as times):
        try:
            calls = Calls(f"{options.directory}/{number}")
            for step in draw.steps():
                if step is None:
                    if stopped or now() > options.deadline:
                        return
                    pause(options, account)
                    continue
                was_emptied = emptied
                account.begun += 1
                emptied = account.begun if empties(model, step) else 0
                if emptied:
                    account.held = now()
                account.keep()
                begun = now()
                calls.apply(step)
                done = now()
                if was_emptied and done - account.held > HOLD:
                    slow.write(b"%d\n" % was_emptied)
                times.write(TIME.pack(done))
                account.waited(done - begun)
                model.apply(step)
                account.done += 1
                if step[0] in Draw.SYNCS or (options.sync and not emptied):
                    account.synced = account.done
                account.keep()
        except OSError as error:
            account.error, account.failed = error.errno, now()
            account.keep()
            if error.errno not in CRASH_ERRORS:
                print(f"writer {number}, step {account.begun}: {step[:2]}", file=sys.stderr)
                raise


def run(options):
    children = []
    options.deadline = now() + options.seconds
    for number in range(options.writers):
        pid = os.fork()
        if not pid:
            code = 1
            try:
                write(options, number)
                code = 0
            except BaseException:  # pylint: disable=broad-except
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(pid)
    signal.signal(signal.SIGTERM, lambda *_: [os.kill(pid, signal.SIGTERM) for pid in children])
    while not all(is_under_way(options, number) for number in range(options.writers)):
        assert now() < options.deadline, "a writer does nothing"
        time.sleep(0.002)
    open(f"{options.accounts}/ready", "w").close()
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children)


def is_under_way(options, number):
    try:
        account = Account(paths(options.accounts, number)[1], False)
        return account.done >= options.steps or account.error
    except (FileNotFoundError, ValueError):
        return False


# ---- Judging ----

def contents(path):
    with open(path, "rb") as file:
        if os.path.basename(path) != BIG:
            return file.read()
        total = Sum()
        while data := file.read(SIZE_MAX):
            total = total.extended(data)
        return total.value()


def tree_state(top):
    """The tree as Model.state gives it."""
    found = {}
    for directory, names, files in os.walk(top):
        for name in names + files:
            path = os.path.join(directory, name)
            st = os.lstat(path)
            if stat.S_ISLNK(st.st_mode):
                value = os.readlink(path)
            elif stat.S_ISDIR(st.st_mode):
                value = None
            else:
                value = (stat.S_IMODE(st.st_mode), contents(path))
            found[os.path.relpath(path, top)] = value
    return found


def describe(value):
    if not isinstance(value, tuple):
        return "missing" if value == "" else "a directory" if value is None else f"a link to {value}"
    mode, data = value
    size, digest = data if isinstance(data, tuple) else (len(data), Sum().extended(data).value()[1])
    return f"a file of {size} bytes ({digest[:8]}), mode {mode:o}"


def difference(found, wanted):
    """Where two contents part, and whether zeros or the end of what was found follow."""
    if not (isinstance(found, tuple) and isinstance(wanted, tuple)):
        return ""
    found, wanted = found[1], wanted[1]
    if found == wanted or isinstance(found, tuple) or isinstance(wanted, tuple):
        return ""
    at = next((i for i, pair in enumerate(zip(found, wanted)) if pair[0] != pair[1]),
              min(len(found), len(wanted)))
    rest = "nothing" if at == len(found) else "zeros" if not any(found[at:]) else "other bytes"
    return f"; they part at {at}, where there is {rest}"


def said_of(step):
    """A step without its data."""
    return [len(word) if isinstance(word, bytes) else word for word in step]


def complain(options, number, account, found, states):
    """No state fits: what was promised, which path fits which states, and the calls since then."""
    first, last = states[0], states[-1]
    print(f"writer {number} of seed {options.seed}, after a {options.after}: the tree is in none of "
          f"the {len(states)} states that it may be in, those of step {first[0]} to {last[0]}. "
          f"Steps begun {account.begun}, done {account.done}, synced {account.synced}, by the timer "
          f"{synced_by_timer(options, number)}; ended by "
          f"{errno.errorcode.get(account.error, account.error)}, {options.at - account.held:.3f} s "
          f"after its last truncation to zero")
    touched = set()
    for path in sorted(set(found) | set(first[1]) | set(last[1])):
        here = found.get(path, "")
        fits = [step for step, state in states if state.get(path, "") == here]
        if len(fits) == len(states):
            continue
        touched.add(path)
        print(f"  {path}: found {describe(here)}; it may be, first, "
              f"{describe(first[1].get(path, ''))}, and at last {describe(last[1].get(path, ''))}"
              f"{difference(here, last[1].get(path, ''))}; as after steps "
              f"{f'{fits[0]}..{fits[-1]}' if fits else 'none'} of these")
    model, draw = load(options.accounts, number, options)
    position = 0
    for step in draw.steps():
        if position == account.begun:
            break
        if step is None:
            continue
        position += 1
        if position > first[0] - 20 and (touched & {*step[1:3]} or step[0] in (
                "write", "close", "fsync")):
            print(f"    step {position}: {said_of(step)}")
        model.apply(step)


def synced_by_timer(options, number):
    """How many steps were done so long before the cut that they are synced, whatever else was."""
    if options.after != "cut" or not options.interval:
        return 0
    stall = max(Account(paths(options.accounts, each)[1], False).stall
                for each in range(options.writers))
    limit = options.crash - options.interval - MARGIN - STALLS * stall
    with open(paths(options.accounts, number)[3], "rb") as file:
        return sum(done <= limit for done, in TIME.iter_unpack(file.read()))


def candidates(options, number, account):
    """Each (step, model) that may be found."""
    model, draw = load(options.accounts, number, options)
    with open(paths(options.accounts, number)[2]) as file:
        slow = {int(line) for line in file}
    least = account.done
    if options.after == "cut":
        least = max(account.synced, synced_by_timer(options, number))
    late = options.after == "end" or options.at - account.held > HOLD  # an end logs it
    position = 0
    if position >= least:
        yield position, model
    for step in draw.steps():
        if position == account.begun:
            break
        if step is None:
            continue
        emptied = empties(model, step)
        if emptied and options.after in ("kill", "end") and position + 1 == least:
            yield position, model  # visible, and lost with the daemon
        for part in parts(step):
            model.apply(part)
            if part is not step and position >= least:
                yield position, model  # half of the write, in the last round of the loop all
        position += 1
        if emptied and options.after != "clean":
            if not (late if position >= account.done else position in slow):
                continue
        if position >= least:
            yield position, model


def also_committed(options, candidates_):
    """At the end of a session that was detached, what is staged still is committed as it is."""
    for position, model in candidates_:
        yield position, model
        if options.after == "end" and model.open and model.open.staged is not None:
            model = copy.deepcopy(model)
            model.commit()
            yield position, model


def judge_one(options, number):
    account = Account(paths(options.accounts, number)[1], False)
    if account.error and account.failed < options.crash:
        print(f"writer {number} of seed {options.seed} got "
              f"{errno.errorcode.get(account.error, account.error)} in step {account.begun}, "
              f"{options.crash - account.failed:.3f} s before the crash was begun")
        return None
    found = tree_state(f"{options.directory}/{number}")
    states, at, kept = [], None, None
    for position, model in also_committed(options, candidates(options, number, account)):
        states.append((position, model.state()))
        if states[-1][1] == found:
            at, kept = position, copy.deepcopy(model.tree)
            if position >= account.done:
                break
    if at is None:
        complain(options, number, account, found, states)
        return None
    for node in kept.values():
        if isinstance(node, File):
            node.settle()
    with open(paths(options.accounts, number)[0], "wb") as file:
        pickle.dump(kept, file)
    return account, at


def judge(options):
    steps = lost = aborted = timed = errors = 0
    for number in range(options.writers):
        one = judge_one(options, number)
        if not one:
            errors += 1
            continue
        account, at = one
        steps += account.done
        lost += max(0, account.done - at)
        aborted += account.error in ABORTED
        timed += max(0, synced_by_timer(options, number) - account.synced)
    print(steps, lost, aborted, timed, errors)
    return 1 if errors else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=("run", "judge"))
    parser.add_argument("directory")
    parser.add_argument("accounts")
    parser.add_argument("--seed", required=True)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--commit-close", action="store_true", help="mounted so")
    parser.add_argument("--sync", action="store_true", help="mounted so: each step is synced, "
                        "but for truncations to zero, which wait for a write")
    parser.add_argument("--big", type=int, default=0, help="bytes; the last writer replaces one "
                        "file of about so many")
    parser.add_argument("--after", choices=("cut", "kill", "end", "clean"), default="clean")
    parser.add_argument("--crash", type=float, default=0, help="it was not begun before this, as "
                        "/proc/uptime says")
    parser.add_argument("--at", type=float, default=0, help="and it was over by this")
    parser.add_argument("--interval", type=float, default=0, help="the sync interval, in seconds; 0: "
                        "nobody asks what the timer synced")
    parser.add_argument("--unsynced", action="store_true", help="no step is an fsync")
    parser.add_argument("--pace", type=float, default=0, help="seconds between two operations of a "
                        "writer, on average")
    parser.add_argument("--seconds", type=int, default=120, help="at most")
    parser.add_argument("--steps", type=int, default=1)
    options = parser.parse_args()
    sys.exit(run(options) if options.command == "run" else judge(options))


main()
