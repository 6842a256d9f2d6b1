CREATE TABLE predictions (
    prediction_id STRING,
    model STRING,
    predicted_at STRING,
    probability DOUBLE,
    arrived_at AS PROCTIME()
) WITH (
    'connector' = 'kafka',
    'topic' = '{predictions}',
    'properties.bootstrap.servers' = '{servers}',
    'properties.group.id' = '{output}',
    'scan.startup.mode' = 'earliest-offset',
    'format' = 'json'
);

CREATE TABLE labels (
    entity_id STRING,
    outcome INT,
    observed_at STRING
) WITH (
    'connector' = 'kafka',
    'topic' = '{labels}',
    'properties.bootstrap.servers' = '{servers}',
    'properties.group.id' = '{output}',
    'scan.startup.mode' = 'earliest-offset',
    'format' = 'json'
);

CREATE TABLE minutes (
    model STRING,
    `minute` STRING,
    evaluated BIGINT,
    correct BIGINT,
    squared_error DOUBLE,
    PRIMARY KEY (model, `minute`) NOT ENFORCED
) WITH (
    'connector' = 'upsert-kafka',
    'topic' = '{output}',
    'properties.bootstrap.servers' = '{servers}',
    'key.format' = 'json',
    'value.format' = 'json'
);

INSERT INTO minutes
SELECT model, `minute`, COUNT(*), SUM(correct), SUM(squared_error)
FROM (
    SELECT prediction.model,
           SUBSTRING(GREATEST(prediction.predicted_at, label.observed_at), 1, 16) AS `minute`,
           CASE WHEN (prediction.probability >= 0.5) = (label.outcome = 1) THEN 1 ELSE 0 END AS correct,
           POWER(prediction.probability - label.outcome, 2) AS squared_error
    FROM (
        SELECT prediction_id, model, predicted_at, probability
        FROM (
            SELECT *, ROW_NUMBER() OVER (PARTITION BY prediction_id ORDER BY arrived_at ASC) AS place FROM predictions
        )
        WHERE place = 1
    ) AS prediction
    JOIN (
        SELECT entity_id, outcome, observed_at
        FROM (
            SELECT *, ROW_NUMBER() OVER (PARTITION BY entity_id ORDER BY observed_at DESC, outcome DESC) AS place
            FROM labels
        )
        WHERE place = 1
    ) AS label
    ON prediction.prediction_id = label.entity_id
)
GROUP BY model, `minute`;
