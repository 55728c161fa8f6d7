import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Counts the values of a JSON document, the document itself included: the JDK has no parser for JSON. */
final class Json {
    private static final int DEEPEST = 128;
    private static final Pattern BLANK = Pattern.compile("[ \\t\\n\\r]*+");
    private static final Pattern STRING =
            Pattern.compile("\"(?:[^\"\\\\\\x00-\\x1f]|\\\\(?:[\"\\\\/bfnrt]|u[0-9a-fA-F]{4}))*+\"");
    private static final Pattern WORD =
            Pattern.compile("true|false|null|-?(?:0|[1-9][0-9]*+)(?:\\.[0-9]++)?(?:[eE][+-]?[0-9]++)?");

    private final String text;
    private final Matcher matcher;
    private int at;
    private int count;

    private Json(String text) {
        this.text = text;
        this.matcher = BLANK.matcher(text);
    }

    /** The number of values; an IllegalArgumentException says where the text is not JSON. */
    static int count(String text) {
        Json json = new Json(text);
        json.value(0);
        json.expect(json.at == text.length());
        return json.count;
    }

    private void value(int depth) {
        expect(depth < DEEPEST);
        count++;
        takes(BLANK);
        if (takes('{')) {
            for (boolean isFirst = true; !takes('}'); isFirst = false) {
                expect(isFirst || takes(','));
                takes(BLANK);
                expect(takes(STRING));
                takes(BLANK);
                expect(takes(':'));
                value(depth + 1);
            }
        } else if (takes('[')) {
            for (boolean isFirst = true; !takes(']'); isFirst = false) {
                expect(isFirst || takes(','));
                value(depth + 1);
            }
        } else {
            expect(takes(STRING) || takes(WORD));
        }
        takes(BLANK);
    }

    /** Whether the next character is this one; blanks before it are skipped. */
    private boolean takes(char wanted) {
        takes(BLANK);
        boolean isThere = at < text.length() && text.charAt(at) == wanted;
        at += isThere ? 1 : 0;
        return isThere;
    }

    private boolean takes(Pattern pattern) {
        boolean isThere = matcher.usePattern(pattern).region(at, text.length()).lookingAt();
        at = isThere ? matcher.end() : at;
        return isThere;
    }

    private void expect(boolean isRight) {
        if (!isRight) {
            throw new IllegalArgumentException("at character " + at);
        }
    }
}
