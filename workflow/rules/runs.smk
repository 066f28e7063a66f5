rule train:
    input:
        data=TRAIN_IMAGES,
        network=of_network("weights.safetensors"),
        mismatch=of_network("mismatch.json"),
    output:
        weights=f"{RUN}/weights.safetensors",
        history=f"{RUN}/history.csv",
    log:
        f"{LOGS}/train/{{run}}.log",
    benchmark:
        f"{LOGS}/train/{{run}}.tsv"
    conda:
        "../envs/odm.yaml"
    threads: SETTINGS.threads
    resources:
        **resources_of("train"),
    params:
        card=card_of("train"),
    shell:
        "odm train {wildcards.run} --card {params.card} > {log} 2>&1"


rule evaluate_run:
    input:
        data=TEST_IMAGES,
        weights=f"{RUN}/weights.safetensors",
    output:
        metrics=f"{RUN}/metrics.json",
        summary=f"{RUN}/summary.json",
    log:
        f"{LOGS}/evaluate/{{run}}.log",
    benchmark:
        f"{LOGS}/evaluate/{{run}}.tsv"
    conda:
        "../envs/odm.yaml"
    threads: SETTINGS.threads
    resources:
        **resources_of("evaluate"),
    params:
        card=card_of("evaluate"),
    shell:
        "odm evaluate {wildcards.run} --card {params.card} > {log} 2>&1"
