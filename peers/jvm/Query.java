import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import java.util.regex.Pattern;

/** The parameters of a request. */
final class Query {
    private static final Pattern NUMBER = Pattern.compile("[0-9]{1,18}");
    private static final Pattern MILLISECONDS = Pattern.compile("[0-9]+\\.?[0-9]*|\\.[0-9]+");

    private final Map<String, String> values = new HashMap<>();

    /** A parameter that is not what it should be. */
    static final class Refused extends RuntimeException {
        Refused(String name, String value, String takes) {
            super(name + ": takes " + takes + ", not '" + value + "'\n");
        }
    }

    Query(String text) {
        for (String pair : text == null ? new String[0] : text.split("&")) {
            String[] parts = pair.split("=", 2);
            values.putIfAbsent(decode(parts[0]), parts.length > 1 ? decode(parts[1]) : "");
        }
    }

    int number(String name, int otherwise, int least, int most) {
        String value = values.get(name);
        if (value == null) {
            return otherwise;
        }
        if (!NUMBER.matcher(value).matches() || Long.parseLong(value) < least || Long.parseLong(value) > most) {
            throw new Refused(name, value, "a whole number from " + least + " to " + most);
        }
        return Integer.parseInt(value);
    }

    double length(double most) {
        String value = values.get("ms");
        if (value == null) {
            return Math.min(most, 9000);
        }
        if (!MILLISECONDS.matcher(value).matches() || Double.parseDouble(value) > most) {
            throw new Refused("ms", value, "milliseconds from 0 to " + Work.plain(most) + " (--max-block)");
        }
        return Double.parseDouble(value);
    }

    boolean clock() {
        String value = values.getOrDefault("clock", "wall");
        if (!value.equals("wall") && !value.equals("cpu")) {
            throw new Refused("clock", value, "wall or cpu");
        }
        return value.equals("cpu");
    }

    private static String decode(String text) {
        return URLDecoder.decode(text, StandardCharsets.UTF_8);
    }
}
