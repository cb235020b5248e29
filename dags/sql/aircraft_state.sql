-- One row per leg. `state` holds the last leg of every aircraft before the hours that are read here.
WITH legs AS (
    SELECT
        tailnum,
        sched_dep,
        flight_key,
        -- Of a diverted flight nobody says where it came down.
        CASE WHEN outcome = 'flown' THEN dest END AS airport,
        greatest(coalesce(arr_delay, 0), 0) AS delay
    FROM flights
    WHERE tailnum IS NOT NULL AND outcome <> 'cancelled'
)

SELECT
    l.tailnum,
    l.sched_dep,
    -- First after key and time: of two legs with the same schedule the later one is the state.
    coalesce(s.legs, 0) + row_number() OVER flown AS legs,
    l.flight_key,
    l.airport,
    l.delay,
    coalesce(lag(l.delay) OVER flown, s.delay, 0) AS carried_delay
FROM legs AS l
LEFT JOIN state AS s ON l.tailnum = s.tailnum
WINDOW flown AS (PARTITION BY l.tailnum ORDER BY l.sched_dep, l.flight_key)
