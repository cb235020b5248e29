-- One row per flight. A cancelled flight never left; a diverted one left and did not arrive where it should have.
SELECT
    flight_key,
    time_hour,
    sched_dep,
    carrier,
    flight,
    tailnum,
    origin,
    dest,
    dep_delay,
    arr_delay,
    air_time,
    distance,
    CASE
        WHEN dep_delay IS NULL THEN 'cancelled'
        WHEN air_time IS NULL THEN 'diverted'
        ELSE 'flown'
    END AS outcome,
    landed_at
FROM flights
