"""Serves a bundle from `cdc export --serving`, with only JAX, NumPy and the entropy coder.

python examples/serve.py BUNDLE [PORT]
curl --data-binary @image.npy 'http://127.0.0.1:8000/compress?quality=40' -o image.cdc
curl --data-binary @image.cdc http://127.0.0.1:8000/decompress -o decoded.npy
"""

import functools
import io
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import jax
import numpy as np

from cdc_jax.entropy.coder import EntropyCoder, rounded, to_symbols
from cdc_jax.entropy.coding_model import CodingModel
from cdc_jax.errors import CdcError
from cdc_jax.io import cdc_file


class Model:
    def __init__(self, bundle):
        self.coding = CodingModel.load(Path(bundle, "coding.npz"))
        self.coder = EntropyCoder(self.coding)
        programs = (Path(bundle, f"{part}.stablehlo").read_bytes() for part in ("encoder", "decoder"))
        self.encoder, self.decoder = (jax.export.deserialize(bytearray(program)) for program in programs)
        self.encode, self.decode = jax.jit(self.encoder.call), jax.jit(self.decoder.call)
        self.every_rate = len(self.decoder.in_avals) > 1

    def compress(self, image, quality=50.0):
        height, width, _ = image.shape
        padded = np.pad(image, ((0, -height % 64), (0, -width % 64), (0, 0)), mode="edge")
        y, z, medians = map(np.asarray, self.encode(padded[None]))
        z, level = to_symbols(z[0] - medians), round(quality * cdc_file.QUALITY_STEPS) if self.every_rate else 0
        coded = self.coding.latents.code(z, level, functools.partial(rounded, y[0]))
        stream = self.coder.encode(z, coded.symbols, coded.scale_index)
        level = level if self.coding.format_version > 1 else None
        return cdc_file.pack(self.coding.fingerprint, height, width, stream, level=level)

    def decompress(self, data):
        file = cdc_file.unpack(data, max_pixels=2**20)
        if file.fingerprint != self.coding.fingerprint:
            raise CdcError(f"The file needs the model {file.fingerprint.hex()}.")
        shape = (-(-file.height // 64), -(-file.width // 64), self.coding.channels)
        y_hat = self.coder.decode(file.stream, shape, file.level).y_hat
        quality = [np.array([file.level / cdc_file.MAX_LEVEL], np.float32)] if self.every_rate else []
        return np.asarray(self.decode(y_hat[None], *quality))[0, : file.height, : file.width]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        url, body = urlsplit(self.path), self.rfile.read(int(self.headers["Content-Length"]))
        try:
            if url.path == "/compress":
                quality = float(dict(parse_qsl(url.query)).get("quality", 50))
                status, answer = 200, self.server.model.compress(np.load(io.BytesIO(body)), quality)
            else:
                np.save(array := io.BytesIO(), self.server.model.decompress(body))
                status, answer = 200, array.getvalue()
        except (CdcError, ValueError) as error:
            status, answer = 400, f"{error}\n".encode()
        self.send_response(status)
        self.end_headers()
        self.wfile.write(answer)


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", int((sys.argv[2:] or [8000])[0])), Handler) as server:
        server.model = Model(sys.argv[1])
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()
