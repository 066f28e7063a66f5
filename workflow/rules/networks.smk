rule pretrain:
    input:
        data=TRAIN_IMAGES,
        src=sources("pretrain"),
    output:
        weights=f"{NETWORK}/weights.safetensors",
        history=f"{NETWORK}/history.csv",
    log:
        f"{LOGS}/pretrain/{{network}}.log",
    benchmark:
        f"{LOGS}/pretrain/{{network}}.tsv"
    conda:
        "../envs/odm.yaml"
    threads: SETTINGS.threads
    resources:
        gpu=GPU,
        processors=SETTINGS.threads,
    params:
        settings=tracked("threads", "device", "pretraining", "networks.{network}"),
    shell:
        "odm pretrain {wildcards.network} > {log} 2>&1"


rule mismatch:
    input:
        data=TRAIN_IMAGES,
        weights=f"{NETWORK}/weights.safetensors",
        src=sources("mismatch"),
    output:
        f"{NETWORK}/mismatch.json",
    log:
        f"{LOGS}/mismatch/{{network}}.log",
    benchmark:
        f"{LOGS}/mismatch/{{network}}.tsv"
    conda:
        "../envs/odm.yaml"
    threads: SETTINGS.threads
    resources:
        gpu=GPU,
        processors=SETTINGS.threads,
    params:
        settings=tracked("threads", "device", "mismatch", "qat", "networks.{network}"),
    shell:
        "odm mismatch {wildcards.network} > {log} 2>&1"


rule evaluate_network:
    input:
        data=TEST_IMAGES,
        weights=f"{NETWORK}/weights.safetensors",
        src=sources("evaluate"),
    output:
        metrics=f"{NETWORK}/metrics.json",
        summary=f"{NETWORK}/summary.json",
        timing=f"{NETWORK}/timing.json",
    log:
        f"{LOGS}/evaluate/{{network}}.log",
    benchmark:
        f"{LOGS}/evaluate/{{network}}.tsv"
    conda:
        "../envs/odm.yaml"
    threads: SETTINGS.threads
    resources:
        gpu=GPU,
        processors=SETTINGS.threads,
    params:
        settings=tracked("threads", "device", "pretraining", "networks.{network}"),
    shell:
        "odm evaluate {wildcards.network} > {log} 2>&1"
