// The busiest hours of a gold table, as a Delta table of its own. Run it with the archives of `lodestream run --engine spark`:
//   spark-shell --jars "$(ls -m ~/.cache/lodestream/spark/*.jar | tr -d ' \n')" \
//     --conf spark.sql.extensions=io.delta.sql.DeltaSparkSessionExtension \
//     --conf spark.sql.catalog.spark_catalog=org.apache.spark.sql.delta.catalog.DeltaCatalog \
//     --conf spark.lodestream.lake=lake -i BusiestHours.scala
import org.apache.spark.sql.functions.{col, desc}

val lake = spark.conf.get("spark.lodestream.lake")
val hours = spark.read.format("delta").load(s"$lake/gold/departures_per_hour")

val busiest = hours
  .select(col("window_start"), col("origin"), col("scheduled"))
  .orderBy(desc("scheduled"), col("window_start"), col("origin"))
  .limit(10)

busiest.write.format("delta").mode("overwrite").save(s"$lake/../busiest_hours")
busiest.show(truncate = false)
