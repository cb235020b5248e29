-- One row per airport and hour. The hours that are read are whole: rows that landed long ago and rows that came late.
SELECT
    time_hour,
    origin,
    count(dep_delay) AS departures,
    count(*) - count(dep_delay) AS cancellations,
    count(*) FILTER (WHERE dep_delay >= {{ params.late_minutes }}) AS late_departures,
    avg(dep_delay) AS mean_delay
FROM flights
GROUP BY time_hour, origin
