-- title: Who is late
-- description: Airlines by minutes late, of those that you may see.
select airline, flights, round(arr_delay_mean, 1) as minutes_late
from gold.delay_by_carrier
where airline is not null
order by minutes_late desc
