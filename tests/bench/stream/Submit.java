import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.table.api.TableResult;

/** Hands SQL to a Flink cluster: one statement a line in, one JSON value a line out. An INSERT is answered when its job has ended. */
public class Submit {
    /** Arguments: port of the cluster's REST door, parallelism, folder of checkpoints, seconds that a job may take. */
    public static void main(String[] arguments) throws Exception {
        Configuration configuration = new Configuration();
        configuration.setString("execution.target", "remote");
        configuration.setString("rest.address", "127.0.0.1");
        configuration.setString("rest.port", arguments[0]);
        configuration.setString("parallelism.default", arguments[1]);
        configuration.setString("pipeline.object-reuse", "true");
        configuration.setString("execution.checkpointing.interval", "1s");
        configuration.setString("execution.checkpointing.dir", "file://" + arguments[2]);
        configuration.setString("table.local-time-zone", "UTC");
        long limit = Long.parseLong(arguments[3]);
        TableEnvironment tables = TableEnvironment.create(
                EnvironmentSettings.newInstance().withConfiguration(configuration).inStreamingMode().build());
        System.out.println("\"ready\"");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String sql = lines.readLine(); sql != null; sql = lines.readLine()) {
            System.out.println(answer(tables, sql, limit));
        }
    }

    private static String answer(TableEnvironment tables, String sql, long limit) {
        try {
            long begun = System.nanoTime();
            TableResult result = tables.executeSql(sql);
            if (result.getJobClient().isPresent()) {
                try {
                    result.await(limit, TimeUnit.SECONDS);
                } catch (TimeoutException late) {
                    result.getJobClient().get().cancel().get();
                    return "{\"error\":\"it took more than " + limit + " s\"}";
                }
            }
            return "{\"seconds\":" + (System.nanoTime() - begun) / 1e9 + "}";
        } catch (Exception error) {
            Throwable cause = error;
            while (cause.getCause() != null) {
                cause = cause.getCause();
            }
            String words = String.valueOf(cause).replaceAll("[^ -~]", " ").replace("\\", "/").replace("\"", "'");
            words = words.substring(0, Math.min(words.length(), 300));
            return "{\"error\":\"" + words + "\"}";
        }
    }
}
