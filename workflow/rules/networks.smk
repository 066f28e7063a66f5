# A dial is a network that a step makes from another one; from there on both are treated alike. What is measured and
# scored depends on a network's own settings through its weights, which carry a digest of them.


rule pretrain:
    input:
        data=TRAIN_IMAGES,
    output:
        weights=f"{RESULTS}/networks/{{pretrained}}/weights.safetensors",
        history=f"{RESULTS}/networks/{{pretrained}}/history.csv",
    log:
        f"{LOGS}/pretrain/{{pretrained}}.log",
    benchmark:
        f"{LOGS}/pretrain/{{pretrained}}.tsv"
    conda:
        "../envs/odm.yaml"
    threads: SETTINGS.threads
    resources:
        **resources_of("pretrain"),
    params:
        card=card_of("pretrain"),
    shell:
        "odm pretrain {wildcards.pretrained} --card {params.card} > {log} 2>&1"


rule dial:
    input:
        weights=base_weights,
    output:
        f"{RESULTS}/networks/{{dial}}/weights.safetensors",
    log:
        f"{LOGS}/dial/{{dial}}.log",
    benchmark:
        f"{LOGS}/dial/{{dial}}.tsv"
    conda:
        "../envs/odm.yaml"
    resources:
        **resources_of("dial"),
    params:
        card=card_of("dial"),
    shell:
        "odm dial {wildcards.dial} --card {params.card} > {log} 2>&1"


rule mismatch:
    input:
        data=TRAIN_IMAGES,
        weights=f"{NETWORK}/weights.safetensors",
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
        **resources_of("mismatch"),
    params:
        card=card_of("mismatch"),
    shell:
        "odm mismatch {wildcards.network} --card {params.card} > {log} 2>&1"


rule evaluate_network:
    input:
        data=TEST_IMAGES,
        weights=f"{NETWORK}/weights.safetensors",
    output:
        metrics=f"{NETWORK}/metrics.json",
        summary=f"{NETWORK}/summary.json",
    log:
        f"{LOGS}/evaluate/{{network}}.log",
    benchmark:
        f"{LOGS}/evaluate/{{network}}.tsv"
    conda:
        "../envs/odm.yaml"
    threads: SETTINGS.threads
    resources:
        **resources_of("evaluate"),
    params:
        card=card_of("evaluate"),
    shell:
        "odm evaluate {wildcards.network} --card {params.card} > {log} 2>&1"
