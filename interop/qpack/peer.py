"""pylsqpack behind standard input and output: one JSON object a line, answered by one.

Bytes are hexadecimal digits, fields are pairs of them. An answer with `error` names the exception of pylsqpack.
"""

import json
import sys

import pylsqpack


class Peer:
    def __init__(self):
        self.encoder = None
        self.decoder = None

    def new_encoder(self, capacity, blocked):
        self.encoder = pylsqpack.Encoder()
        return {"instructions": self.encoder.apply_settings(capacity, blocked).hex()}

    def new_decoder(self, capacity, blocked):
        self.decoder = pylsqpack.Decoder(capacity, blocked)
        return {}

    def encode(self, stream, fields):
        pairs = [(bytes.fromhex(name), bytes.fromhex(value)) for name, value in fields]
        instructions, section = self.encoder.encode(stream, pairs)
        return {"instructions": instructions.hex(), "section": section.hex()}

    def feed_decoder(self, data):
        self.encoder.feed_decoder(bytes.fromhex(data))
        return {}

    def feed_encoder(self, data):
        return {"unblocked": self.decoder.feed_encoder(bytes.fromhex(data))}

    def section(self, stream, data):
        try:
            return decoded(self.decoder.feed_header(stream, bytes.fromhex(data)))
        except pylsqpack.StreamBlocked:
            return {"blocked": True}

    def resume(self, stream):
        return decoded(self.decoder.resume_header(stream))

    def cancel(self, stream):
        return {"instructions": self.decoder.cancel_stream(stream).hex()}


def decoded(result):
    instructions, fields = result
    return {
        "instructions": instructions.hex(),
        "fields": [[name.hex(), value.hex()] for name, value in fields],
    }


def main():
    peer = Peer()
    for line in sys.stdin:
        arguments = json.loads(line)
        operation = getattr(peer, arguments.pop("op"))
        try:
            answer = operation(**arguments)
        except (
            pylsqpack.DecompressionFailed,
            pylsqpack.DecoderStreamError,
            pylsqpack.EncoderStreamError,
        ) as error:
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)


main()
