# The busiest hours of a gold table, with SparkR. Run it with the archives of `lodestream run --engine spark`:
#   spark-submit --jars "$(ls -m ~/.cache/lodestream/spark/*.jar | tr -d ' \n')" busiest_hours.R lake
library(SparkR)

lake <- commandArgs(trailingOnly = TRUE)[1]
sparkR.session(
  appName = "busiest hours",
  sparkConfig = list(
    spark.sql.extensions = "io.delta.sql.DeltaSparkSessionExtension",
    spark.sql.catalog.spark_catalog = "org.apache.spark.sql.delta.catalog.DeltaCatalog"
  )
)

hours <- read.df(file.path(lake, "gold", "departures_per_hour"), source = "delta")
ordered <- arrange(select(hours, "window_start", "origin", "scheduled"), desc(hours$scheduled))
print(head(ordered, 10))

sparkR.session.stop()
