"""llama.cpp's own server, for comparison: starts it on a free port of this machine and prints one line of JSON
with its address. Ends when standard input ends."""

import argparse
import importlib.metadata
import json
import sys

import xllamacpp

FLASH_ATTENTION = {
    "default": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "off": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


def parameters(arguments):
    params = xllamacpp.CommonParams()
    params.model.path = arguments.model
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.ui = False
    params.verbosity = 1
    params.n_ctx = arguments.window_tokens
    params.n_parallel = arguments.slots
    params.cpuparams.n_threads = arguments.threads
    params.cpuparams_batch.n_threads = arguments.threads
    params.flash_attn_type = FLASH_ATTENTION[arguments.flash_attention]
    params.slot_save_path = arguments.slot_folder.rstrip("/") + "/"
    # Only the slots that a request names may hold prompts; copying them aside would cost this server time.
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    return params


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--window-tokens", type=int, required=True, help="of all slots together")
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--flash-attention", choices=sorted(FLASH_ATTENTION), required=True)
    parser.add_argument("--slot-folder", required=True)
    server = xllamacpp.Server(parameters(parser.parse_args()))
    started = {"url": server.listening_address, "version": importlib.metadata.version("xllamacpp")}
    print(json.dumps(started), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
