-- One row per aircraft. All legs are read of each aircraft that is computed.
SELECT
    l.tailnum,
    count(*) AS legs,
    sum(l.delay)::BIGINT AS delay,
    max(l.sched_dep) AS last_leg,
    -- The last one that is known: arg_max passes over legs without an airport, which were diverted.
    arg_max(l.airport, l.legs) AS airport,
    any_value(p.manufacturer) AS manufacturer,
    any_value(p.model) AS model,
    any_value(p.seats) AS seats,
    any_value(p.year) AS built
FROM legs AS l
LEFT JOIN planes AS p ON l.tailnum = p.tailnum
GROUP BY l.tailnum
