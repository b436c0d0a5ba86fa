#!/usr/bin/env python3
"""Checks who includes whom (the layering of the source tree). Usage: includes.py SOURCE_ROOT"""
import pathlib
import re
import sys

ROOT = pathlib.Path(sys.argv[1])
ALLOWED = {  # folder -> folders whose headers it may include
    "lib/wire": {"lib/wire"},
    "lib/net": {"lib/wire", "lib/net"},
    "modules": {"lib/wire", "lib/net", "modules"},
    "server": {"lib/wire", "lib/net", "modules", "server"},
    "client": {"lib/wire", "lib/net", "client"},
}
ONLY_IN = {  # system header (regex) -> files (regex) that may include it
    r"nghttp2/.*": r"lib/net/http2[a-z_]*\.[ch]",
    r"nghttp3/.*": r"lib/net/http3[a-z_]*\.[ch]",
    r"ngtcp2/.*": r"lib/net/quic[a-z_]*\.[ch]",
    r"gnutls/.*": r"lib/net/quic[a-z_]*\.[ch]",
    r"intel-ipsec-mb\.h": r"lib/net/quic_aead\.c",
    r"yaml\.h": r"(server|client)/config[a-z_]*\.[ch]|lib/net/yaml_depth\.c",
    r"uv\.h": r"(lib/net|server|client)/.*",
    r"h2o(\.h|/.*)": r"(modules|server)/.*",
    r"ares.*\.h": r"lib/net/resolver[a-z_]*\.[ch]",
}
LIBC_ONLY = re.compile(r"(openssl|uv|jansson|nghttp|ngtcp2|gnutls|h2o|ares|yaml)")

errors = []
for folder, allowed in ALLOWED.items():
    for path in sorted((ROOT / folder).rglob("*.[ch]")):
        name = str(path.relative_to(ROOT))
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = re.match(r'\s*#\s*include\s+(["<])([^">]+)[">]', line)
            if not match:
                continue
            kind, header = match.groups()
            if kind == '"':
                target = header.rsplit("/", 1)[0] if "/" in header else ""
                if target not in allowed:
                    errors.append(f"{name}:{number}: {folder} must not include \"{header}\"")
                continue
            if folder == "lib/wire" and LIBC_ONLY.match(header):
                errors.append(f"{name}:{number}: lib/wire is libc only, not <{header}>")
            for pattern, files in ONLY_IN.items():
                if re.fullmatch(pattern, header) and not re.fullmatch(files, name):
                    errors.append(f"{name}:{number}: <{header}> is not for this file")
print("\n".join(errors) or "includes: ok")
sys.exit(1 if errors else 0)
