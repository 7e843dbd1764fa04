"""`batchchat bench`: engines side by side on this machine."""

from __future__ import annotations

from typing import Annotated

import typer


def bench(
    recipe: Annotated[
        str | None, typer.Argument(help="Measure this recipe's own chats and model instead of a workload.")
    ] = None,
    model: Annotated[str, typer.Option("--model", help="A shape with random weights, or a model.")] = "135m",
    engines: Annotated[
        str,
        typer.Option(
            "--engines",
            help="Comma-separated: plain, pipeline, pipeline-unknown, continuous, strict, drafted, transformers, vllm, "
            "openvino, llama.cpp, llama.cpp-q8; of a recipe pipeline, continuous, strict.",
        ),
    ] = "pipeline,continuous",
    workload: Annotated[
        str,
        typer.Option(
            "--workload",
            help="mixed48, mixed480, mixed16, four, uniform256, two-turns, shared-prefix or separate-prefixes.",
        ),
    ] = "mixed48",
    dtype: Annotated[str, typer.Option("--dtype", help="Number type of the weights.")] = "bfloat16",
    rows: Annotated[int, typer.Option("--rows", min=1, help="Requests in a batch, or in flight, of a workload.")] = 48,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Measurements of each; the middle one counts.")] = 1,
    with_: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            help="Overrides of the recipe, such as model.quantization=4bit, with spaces between several; once per way "
            "to run it. The recipe as it is comes first.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Rows of the recipe's input to answer.")] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(
            "--peer",
            help="Where a peer among the engines is, once for each: vllm=PYTHON, openvino=PYTHON and llama.cpp=PYTHON, "
            "of environments that have them (xllamacpp for the last), or llama.cpp=PATH of its llama-server.",
        ),
    ] = None,
    flips: Annotated[
        bool, typer.Option("--flips", help="Count instead how often another batch changes an answer.")
    ] = False,
    products: Annotated[
        bool,
        typer.Option("--products", help="Time instead the ways to compute each product of the model on this CPU."),
    ] = False,
    replicas: Annotated[
        str | None,
        typer.Option(
            "--replicas", help="Numbers of replicas to compare, such as 1,2, with the recipe or the workload."
        ),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the results as JSON, and nothing else.")] = False,
) -> None:
    """Measure engines in one process each, in turns: tokens per second, time to the first completion, peak memory, and
    the share of what this machine's arithmetic allows."""
    import json

    from batchchat.benchmarks.names import chosen
    from batchchat.reporting.escape import printable

    def progress(text: str) -> None:
        typer.echo(printable(text), err=True)

    if flips:
        from batchchat.benchmarks.flips import count_flips

        counted = count_flips(model, chosen("dtype", dtype), chosen("workload", workload), rows)
        print(json.dumps(counted) if json_ else counted["sentence"])
        return
    if products:
        from batchchat.benchmarks.products import compare_products, products_table

        timed = compare_products(model, chosen("dtype", dtype))
        print(json.dumps(timed) if json_ else products_table(timed))
        return
    if replicas is not None:
        from batchchat.errors import UsageError

        listed = [number.strip() for number in replicas.split(",")]
        if not all(number.isdigit() and int(number) for number in listed):
            raise UsageError(f"--replicas is {replicas!r}, but has to be numbers such as 1,2")
    if replicas is not None and recipe is None:
        from batchchat.benchmarks.replicas import compare_replicas, replicas_table

        numbers, load = [int(number) for number in listed], chosen("workload", workload)
        measured = compare_replicas(numbers, model=model, dtype=dtype, rows=rows, workload=load, progress=progress)
        print(json.dumps(measured) if json_ else replicas_table(measured))
        return
    names = [chosen("engine", engine.strip()) for engine in engines.split(",")]
    if recipe is not None:
        import shlex

        from batchchat.benchmarks.runs import engine_variants, runs_table, time_recipes

        if replicas is not None:
            with_ = [f"engine.replicas={number}" for number in listed]
        ways = {"as it is": [], **{text: shlex.split(text) for text in with_}} if with_ else engine_variants(names)
        runs = time_recipes(recipe, ways, rounds=rounds, limit=limit, progress=progress)
        print(json.dumps(runs) if json_ else runs_table(runs))
        return
    from batchchat.benchmarks.compare import compare_engines, table
    from batchchat.benchmarks.peers import peer_paths

    results = compare_engines(
        names,
        model=model,
        dtype=chosen("dtype", dtype),
        rows=rows,
        workload=chosen("workload", workload),
        rounds=rounds,
        progress=progress,
        peers=peer_paths(peer or ()),
    )
    print(json.dumps(results) if json_ else table(results))
    if any("failed" in result for result in results):
        raise typer.Exit(5)
