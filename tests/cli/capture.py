#!/usr/bin/env python3
"""Asks a real HAProxy and writes its answers as golden files.

    capture.py <name> <haproxy and its arguments...>      e.g.  capture.py 3.2 /usr/sbin/haproxy

golden/tables.in    one line a connection            -> golden/tables.<name>.txt
golden/framing.in   the bytes of a connection, escaped -> golden/framing.<name>.txt
"""
import os, re, socket, subprocess, sys, tempfile, time

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden")
# Sent whole at once; the end of the answer is the end of the connection, or this silence.
SILENCE_S = 0.3


def ask(path, data):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(SILENCE_S)
    s.connect(path)
    s.sendall(data)
    out, closed = b"", False
    try:
        while not closed:
            piece = s.recv(65536)
            out, closed = out + piece, not piece
    except socket.timeout:
        pass
    s.close()
    return out, closed


def unescape(text):
    return text.encode("latin1").decode("unicode_escape").encode("latin1")


def escape(data):
    names = {0: "\\0", 9: "\\t", 10: "\\n", 13: "\\r", 92: "\\\\"}
    return "".join(names.get(b, chr(b) if 32 <= b < 127 else "\\x%02x" % b) for b in data)


def lines(name):
    with open(os.path.join(HERE, name), encoding="utf8") as f:
        return f.read().split("\n")[:-1]


def main(name, command):
    with tempfile.TemporaryDirectory() as work, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        text = "\n".join(lines("haproxy.cfg")) + "\n"
        config = os.path.join(work, "haproxy.cfg")
        with open(config, "w") as f:
            f.write(text.replace("@DIR@", work).replace("@PORT@", str(port)))
        process = subprocess.Popen(command + ["-db", "-f", config], stderr=subprocess.DEVNULL)
        try:
            admin = os.path.join(work, "admin.sock")
            for _ in range(100):
                if os.path.exists(admin):
                    break
                time.sleep(0.05)
            time.sleep(0.2)
            with open(os.path.join(HERE, f"tables.{name}.txt"), "wb") as f:
                for line in lines("tables.in"):
                    answer, _ = ask(admin, line.encode() + b"\n")
                    answer = re.sub(rb"^0x[0-9a-f]+: key", b"0xPTR: key", answer, flags=re.M)
                    f.write(b">>> " + line.encode() + b"\n" + answer)
            with open(os.path.join(HERE, f"framing.{name}.txt"), "w") as f:
                for line in lines("framing.in"):
                    answer, closed = ask(admin, unescape(line))
                    f.write(f"{line}\n  {'closed' if closed else 'open'} {escape(answer)}\n")
        finally:
            process.kill()
            process.wait()


main(sys.argv[1], sys.argv[2:])
