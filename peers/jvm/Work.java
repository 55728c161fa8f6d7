import com.sun.management.OperatingSystemMXBean;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.util.Arrays;
import java.util.HexFormat;
import javax.crypto.SecretKeyFactory;
import javax.crypto.spec.PBEKeySpec;

/** The blocking work, with the same results as the common crate's {@code work.rs}. */
final class Work {
    private static final String PASSWORD = "correct horse battery staple";
    private static final String SALT = "stallbench";

    private static final OperatingSystemMXBean PROCESS =
            (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();

    private Work() {}

    static Server.Answer timer(double ms, boolean isCpu) throws IOException {
        long length = (long) (ms * 1e6);
        if (isCpu) {
            long end = cpu() + length;
            while (cpu() < end) {
                // Reading the clock takes system calls: spinning in between keeps the thread in user mode.
                spin(200_000);
            }
        } else {
            spin(length);
        }
        return Server.Answer.text(200, "spun for " + plain(ms) + " ms\n");
    }

    private static void spin(long length) {
        long start = System.nanoTime();
        while (System.nanoTime() - start < length) {
            Thread.onSpinWait();
        }
    }

    /**
     * The processor time of the carrier, which a virtual thread keeps while it computes: the JVM has no such clock for virtual threads. The kernel
     * brings it up to date only a few times in 10 ms, or when it is asked for the time of the whole process.
     */
    private static long cpu() throws IOException {
        PROCESS.getProcessCpuTime();
        return Long.parseLong(Files.readString(Path.of("/proc/thread-self/schedstat")).split(" ")[0]);
    }

    static Server.Answer sleep(double ms) throws InterruptedException {
        Thread.sleep((long) ms, (int) (ms * 1e6 % 1e6));
        return Server.Answer.text(200, "slept for " + plain(ms) + " ms\n");
    }

    static Server.Answer stringify(int items) throws GeneralSecurityException {
        StringBuilder text = new StringBuilder("[");
        for (int number = 0; number < items; number++) {
            text.append(number == 0 ? "" : ",")
                    .append("{\"flight_number\":").append(number)
                    .append(",\"mission\":\"Mission ").append(number)
                    .append("\",\"rocket\":\"Explorer IS1\",\"target\":\"Kepler-442 b\",\"customers\":[\"ZTM\",\"NASA\"],\"upcoming\":")
                    .append(number % 2 == 0)
                    .append(",\"success\":")
                    .append(number % 3 == 0)
                    .append('}');
        }
        return digest("stringified", items, text.append(']').toString().getBytes(StandardCharsets.UTF_8));
    }

    /** Sorted numbers; the unsorted input is the same every time (SplitMix64 from 0). */
    static Server.Answer sort(int items) throws GeneralSecurityException {
        long[] numbers = new long[items];
        long state = 0;
        for (int index = 0; index < items; index++) {
            state += 0x9e3779b97f4a7c15L;
            long mixed = (state ^ (state >>> 30)) * 0xbf58476d1ce4e5b9L;
            mixed = (mixed ^ (mixed >>> 27)) * 0x94d049bb133111ebL;
            // Java sorts signed numbers: with the highest bit flipped they are in the order of unsigned ones.
            numbers[index] = (mixed ^ (mixed >>> 31)) ^ Long.MIN_VALUE;
        }
        Arrays.sort(numbers);
        ByteBuffer bytes = ByteBuffer.allocate(8 * items).order(ByteOrder.LITTLE_ENDIAN);
        for (long number : numbers) {
            bytes.putLong(number ^ Long.MIN_VALUE);
        }
        return digest("sorted", items, bytes.array());
    }

    static Server.Answer pbkdf2(int iterations) throws GeneralSecurityException {
        byte[] salt = SALT.getBytes(StandardCharsets.UTF_8);
        PBEKeySpec key = new PBEKeySpec(PASSWORD.toCharArray(), salt, iterations, 512);
        return digest("pbkdf2", iterations, SecretKeyFactory.getInstance("PBKDF2WithHmacSHA512").generateSecret(key).getEncoded());
    }

    static Server.Answer parse(byte[] document) throws GeneralSecurityException {
        try {
            // Unlike a String's constructor, a decoder refuses what is not UTF-8.
            return digest("parsed", Json.count(StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(document)).toString()), document);
        } catch (IllegalArgumentException | CharacterCodingException wrong) {
            return Server.Answer.text(400, "body: not JSON: " + wrong.getMessage() + "\n");
        }
    }

    /** An answer with a digest of the result, which proves that the work was done and lets clients check it. */
    private static Server.Answer digest(String work, int amount, byte[] bytes) throws GeneralSecurityException {
        String hex = HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
        return Server.Answer.json(String.format(
                "{\"work\":\"%s\",\"amount\":%d,\"bytes\":%d,\"sha256\":\"%s\"}", work, amount, bytes.length, hex));
    }

    /** A number without a fraction that is zero. */
    static String plain(double number) {
        return number == Math.rint(number) ? Long.toString((long) number) : Double.toString(number);
    }
}
