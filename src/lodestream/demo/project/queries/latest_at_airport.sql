-- title: Departures of an airport
-- description: The newest hours at one airport.
-- parameters:
--   airport: {type: string, default: JFK, description: "EWR, JFK or LGA"}
--   hours: {type: int, default: 24}
select window_start as hour, scheduled, departed, cancelled, round(delay_mean, 1) as minutes_late
from gold.departures_per_hour
where origin = $airport
order by hour desc
limit $hours
