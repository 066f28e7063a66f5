rule data:
    output:
        f"{RESULTS}/data/{{part}}.safetensors",
    log:
        f"{LOGS}/data/{{part}}.log",
    benchmark:
        f"{LOGS}/data/{{part}}.tsv"
    conda:
        "../envs/odm.yaml"
    resources:
        **resources_of("data"),
    params:
        card=card_of("data"),
    shell:
        "odm data {wildcards.part} --card {params.card} > {log} 2>&1"
